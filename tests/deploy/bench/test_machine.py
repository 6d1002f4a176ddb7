"""What is said of a machine, from recorded `/proc/cpuinfo` files."""

import pytest

from paddle_sparse_cb.deploy.bench.machine import advice, parse_machine, this_machine

X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 7763 64-Core Processor
flags\t\t: fpu sse4_2 avx fma avx2 sha_ni

processor\t: 1
model name\t: AMD EPYC 7763 64-Core Processor
flags\t\t: fpu sse4_2 avx fma avx2 sha_ni
"""
AVX512 = X86.replace("avx2", "avx2 avx512f avx512_vnni")
CORTEX_A53 = """processor\t: 0
BogoMIPS\t: 38.40
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU part\t: 0xd03

processor\t: 1
Features\t: fp asimd evtstrm crc32 cpuid
CPU part\t: 0xd03

Model\t\t: Raspberry Pi 3 Model B Rev 1.2
"""
BIG_AND_LITTLE = """processor\t: 0
Features\t: fp asimd aes fphp asimdhp asimddp
CPU part\t: 0xd05

processor\t: 4
Features\t: fp asimd aes fphp asimdhp asimddp
CPU part\t: 0xd41
"""


@pytest.mark.parametrize(
    ("cpuinfo", "cpu", "features"),
    [
        (X86, "AMD EPYC 7763 64-Core Processor", ("avx2", "fma")),
        (AVX512, "AMD EPYC 7763 64-Core Processor", ("avx2", "fma", "avx512f", "avx512_vnni")),
        (CORTEX_A53, "Raspberry Pi 3 Model B Rev 1.2 (Cortex-A53)", ("asimd",)),
        (BIG_AND_LITTLE, "Cortex-A55 + ARM part 0xd41", ("asimd", "fphp", "asimdhp", "asimddp")),
    ],
)
def test_the_cpu_and_its_features_are_read(cpuinfo, cpu, features):
    machine = parse_machine(cpuinfo, 2, "performance")
    assert (machine.cpu, machine.features) == (cpu, features)
    assert (machine.cores, machine.governor) == (2, "performance")


def test_a_system_without_cpuinfo_has_a_name_and_no_features():
    machine = parse_machine("", 8, None)
    assert machine.cpu
    assert machine.features == ()


@pytest.mark.parametrize(
    ("cpuinfo", "words"),
    [
        (X86, ()),
        (AVX512, ("AVX-512",)),
        (CORTEX_A53, ("slower than dense",)),
        (BIG_AND_LITTLE, ("slower than dense", "compare with dense FP16, and combine both")),
    ],
)
def test_the_advice_fits_the_machine_and_ends_with_the_published_figures(cpuinfo, words):
    *lines, published = advice(parse_machine(cpuinfo, 2, None))
    assert len(lines) == len(words)
    for line, word in zip(lines, words):
        assert word in line
    assert "Cortex-A53 loses (431 -> 452 ms)" in published


def test_this_machine_is_plain_values():
    machine = this_machine().to_dict()
    assert machine.keys() == {"cpu", "cores", "features", "os", "governor"}
    assert machine["cpu"]
    assert machine["cores"] >= 1
