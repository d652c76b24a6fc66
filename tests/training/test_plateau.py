from napari_msgan.training.plateau import Plateau


def reached(losses, patience, every=10):
    plateau = Plateau(patience)
    for index, loss in enumerate(losses, 1):
        if plateau.is_reached(index * every, loss):
            return index * every
    return None


def test_a_falling_loss_never_ends():
    assert reached([1 / n for n in range(1, 50)], 30) is None


def test_a_loss_that_stays_ends_after_the_patience():
    assert reached([1.0, 0.5, 0.5, 0.4999, 0.5, 0.5], 30) == 50


def test_a_rising_loss_ends_and_one_late_success_starts_anew():
    assert reached([0.5, 0.6, 0.7, 0.8], 30) == 40
    assert reached([0.5, 0.6, 0.4, 0.7, 0.8, 0.9], 30) == 60


def test_a_thousandth_is_an_improvement_and_less_is_none():
    assert reached([1.0, 1.0, 0.9985, 1.0, 1.0, 1.0], 30) == 60
    assert reached([1.0, 1.0, 0.9995, 1.0, 1.0, 1.0], 30) == 40


def test_a_loss_that_never_is_a_number_ends_after_the_patience():
    plateau = Plateau(30)
    assert [plateau.is_reached(step, float("nan")) for step in (29, 30)] == [False, True]
