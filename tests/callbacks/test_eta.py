from helpers import Pointwise, classifier

from paddle_sparse_cb.callbacks.eta import EtaPrinter


def test_the_estimate_is_told_once(first_digits, capsys):
    classifier(Pointwise()).fit(first_digits, epochs=3, batch_size=16, verbose=0, callbacks=[EtaPrinter("digits")])
    assert capsys.readouterr().out == "training digits: 3 epochs of 10 steps, about 1 min\n"


def test_a_training_too_short_for_an_estimate_is_left_alone(first_digits, capsys):
    classifier(Pointwise()).fit(first_digits, epochs=1, batch_size=80, verbose=0, callbacks=[EtaPrinter("digits")])
    assert capsys.readouterr().out == ""
