"""Each workaround has an effect, and a test that fails as soon as the defect behind it is fixed."""

import inspect
import logging
import re
from xml.etree import ElementTree

import paddle
import pytest
from helpers import RECIPES
from paddle import nn
from paddle.static import InputSpec

from paddle_sparse_cb import InputError
from paddle_sparse_cb.deploy.export import export
from paddle_sparse_cb.deploy.program import read_program
from paddle_sparse_cb.detection import compat, config

BOMB = """<?xml version="1.0"?>
<!DOCTYPE annotation [<!ENTITY a "aaaaaaaaaa">{entities}]>
<annotation><size><width>100</width><height>100</height></size><filename>&{last};</filename></annotation>
"""


def entity_bomb(levels):
    """A VOC annotation whose file name expands to 10**levels characters."""
    names = "abcdefghij"[:levels]
    entities = "".join(f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip(names, names[1:]))
    return BOMB.format(entities=entities, last=names[-1])


def test_a_voc_annotation_cannot_expand_entities(tmp_path):
    import ppdet.data.source.voc as voc

    compat.import_ppdet()
    (tmp_path / "bomb.xml").write_text(entity_bomb(9))
    with pytest.raises(ValueError, match="EntitiesForbidden"):
        voc.ET.parse(str(tmp_path / "bomb.xml"))


def test_ppdets_own_xml_parser_still_expands_entities():
    import ppdet.data.source.voc as voc

    assert "import xml.etree.ElementTree as ET" in inspect.getsource(voc)
    assert len(ElementTree.fromstring(entity_bomb(4)).findtext("filename")) == 10**4


def test_ppdet_still_changes_what_it_creates_modules_from():
    content = config.read_with_bases(RECIPES / "picodet_s_416_trees.yml")
    config.load(content, "r.yml")
    levels = [len(compat.import_ppdet().create("PicoDet").neck.spatial_scales) for _ in range(2)]
    assert levels[1] == levels[0] + 1
    assert len(config.create("PicoDet").neck.spatial_scales) == 4


def test_ppdet_still_looks_up_names_in_modules_with_unsafe_code():
    import ppdet.data.reader as reader
    import ppdet.data.transform as transform
    import ppdet.optimizer.adamw as adamw
    import ppdet.optimizer.optimizer as optimizer

    compat.import_ppdet()
    assert "eval(" in inspect.getsource(adamw.build_adamwdl)
    assert "pickle" in inspect.getsource(transform.DecodeCache)
    assert "getattr(transform, " in inspect.getsource(reader)
    assert "getattr(module, type)" in inspect.getsource(optimizer)
    assert not hasattr(reader.transform, "DecodeCache")
    assert optimizer.build_adamwdl is not adamw.build_adamwdl


def test_ppdet_still_logs_arrays_that_are_not_loaded_unless_silenced():
    import ppdet.utils.checkpoint as checkpoint

    compat.import_ppdet()
    assert "logger.info" in inspect.getsource(checkpoint.match_state_dict)
    assert not logging.getLogger("ppdet.utils.checkpoint").isEnabledFor(logging.INFO)


def test_paddle_still_creates_more_weights_than_the_limit(monkeypatch):
    monkeypatch.setattr(compat, "MAX_WEIGHTS", 50)
    assert nn.Linear(10, 10).weight.size == 100
    create = nn.Layer.create_parameter
    with pytest.raises(InputError, match=r"more than 50 weights .* has shape \[10, 10\]"), compat.limit_parameters():
        nn.Linear(10, 10)
    assert nn.Layer.create_parameter is create


def test_paddle_still_exports_its_own_sync_batch_norm_as_an_operator_of_several_devices(tmp_path):
    def kinds(convert):
        network = convert(nn.Sequential(nn.Conv2D(3, 4, 1), nn.BatchNorm2D(4)))
        network.eval()
        return read_program(export(network, tmp_path / "model", [InputSpec([1, 3, 8, 8], "float32")])).op_counts

    assert "batch_norm" in kinds(compat.convert_sync_batch_norm)
    try:
        operators = set(kinds(nn.SyncBatchNorm.convert_sync_batchnorm))
    except ValueError as error:  # Paddle for CPUs: "Operator sync_batch_norm has not been registered"
        operators = set(re.findall(r"\w+", str(error)))
    assert "sync_batch_norm" in operators
    assert "batch_norm" not in operators


def test_paddle_model_still_has_no_argument_for_unused_parameters():
    import paddle.hapi.model as hapi

    assert "find_unused_parameters" not in inspect.getsource(hapi)
    assert "DataParallel(" in inspect.getsource(hapi)


@pytest.mark.parametrize("find", [True, False])
def test_unused_parameters_are_searched_for_in_the_wrapper_made_within_the_context(find, monkeypatch):
    given = []
    monkeypatch.setattr(paddle, "DataParallel", lambda network, **keywords: given.append(keywords))
    wrapper = paddle.DataParallel
    with compat.find_unused_parameters(find):
        paddle.DataParallel(nn.Linear(1, 1))
    assert given == [{"find_unused_parameters": find}]
    assert paddle.DataParallel is wrapper
