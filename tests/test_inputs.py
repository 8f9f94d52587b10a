"""What losses refuse, in words."""

import pytest
import torch

from kdlab.inputs import (
    check_balanced,
    check_batch,
    check_groups,
    class_rows,
    paired_maps,
    relational,
    teacher_embedding,
    teacher_logits,
    teacher_maps,
)
from kdlab.outputs import Output, Targets


def test_batches_are_refused_in_words():
    x, labels = torch.randn(4, 3), torch.tensor([0, 1, 9, 2])
    with pytest.raises(ValueError, match="label 9 in row 2 of the batch, but the loss has 5 class"):
        check_batch(x, labels, 5)
    with pytest.raises(ValueError, match="label -1 in row 0"):
        check_batch(x, labels - 1, 100)
    with pytest.raises(ValueError, match="labels must be int64, not torch.int32"):
        check_batch(x, labels.int(), 10)
    x[1, 2], x[3, 0] = torch.nan, torch.inf
    with pytest.raises(ValueError, match="2 of 4 student embeddings are NaN or infinite .*row 1"):
        check_batch(x, labels, 10)
    with pytest.raises(ValueError, match="2 of 4 teacher embeddings"):
        check_batch(x, labels, whose="teacher")
    with pytest.raises(ValueError, match=r"4 student embeddings but labels of shape \(3,\)"):
        check_batch(x, labels[:3], 10)
    with pytest.raises(ValueError, match="the batch is empty"):
        check_batch(x[:0], labels[:0])


def test_good_batches_pass_and_labels_are_judged_only_against_classes():
    check_batch(torch.randn(2, 3), torch.tensor([0, 4]), 5)
    check_batch(torch.randn(2, 3), torch.tensor([-7, 4]))


def test_a_missing_or_unequal_teacher_is_refused_in_words():
    student = Output(torch.randn(4, 8))
    with pytest.raises(ValueError, match="Some needs a teacher's embedding"):
        teacher_embedding(student, None, "Some")
    with pytest.raises(ValueError, match=r"student's are \(4, 8\), the teacher's \(4, 16\)"):
        teacher_embedding(student, Output(torch.randn(4, 16)), "Some")


def test_the_teacher_is_detached():
    def draw(*shape):
        return torch.randn(*shape, requires_grad=True)

    student, teacher = (Output(draw(4, 8), draw(4, 5), (draw(4, 2, 3, 3), draw(4, 6, 1, 1)))
                        for _ in range(2))
    assert not teacher_embedding(student, teacher, "Some").requires_grad
    assert torch.equal(teacher_embedding(student, teacher, "Some"), teacher.embedding)
    assert not teacher_logits(student, teacher, "Some").requires_grad
    assert torch.equal(teacher_logits(student, teacher, "Some"), teacher.logits)
    maps = teacher_maps(student, teacher, "Some")
    assert [m.shape for m in maps] == [m.shape for m in teacher.features]
    assert not any(m.requires_grad for m in maps)


def test_missing_or_unequal_logits_are_refused_in_words():
    x = torch.randn(4, 8)
    without, five, six = Output(x), Output(x, torch.randn(4, 5)), Output(x, torch.randn(4, 6))
    with pytest.raises(ValueError, match="Some needs a teacher's logits, got no teacher"):
        teacher_logits(five, None, "Some")
    with pytest.raises(ValueError, match="Some compares logits and the student has none"):
        teacher_logits(without, five, "Some")
    with pytest.raises(ValueError, match="Some compares logits and the teacher has none"):
        teacher_logits(five, without, "Some")
    with pytest.raises(ValueError, match=r"student's are \(4, 5\), the teacher's \(4, 6\)"):
        teacher_logits(five, six, "Some")


def test_missing_or_unequal_maps_are_refused_in_words():
    x, one, two = torch.randn(4, 8), torch.randn(4, 3, 2, 2), torch.randn(4, 5, 1, 1)
    with pytest.raises(ValueError, match="Some needs a teacher's feature maps, got no teacher"):
        teacher_maps(Output(x, features=(one,)), None, "Some")
    with pytest.raises(ValueError, match="the student has 2, the teacher 0; the networks"):
        teacher_maps(Output(x, features=(one, two)), Output(x), "Some")
    with pytest.raises(ValueError, match="the student has 0, the teacher 1"):
        teacher_maps(Output(x), Output(x, features=(one,)), "Some")
    with pytest.raises(ValueError, match="stage 2 has 4 rows of the student and 3 of the teacher"):
        teacher_maps(Output(x, features=(one, two)), Output(x, features=(one, two[:3])), "Some")


def test_groups_are_refused_in_words():
    labels, groups = torch.tensor([0, 1, 0]), torch.tensor([0, 2, 1])
    assert check_groups(Targets(labels, groups), "Some") is groups
    assert check_groups(Targets(labels, groups), "Some", 3) is groups
    with pytest.raises(ValueError, match="Some needs targets.groups"):
        check_groups(Targets(labels), "Some")
    with pytest.raises(ValueError, match=r"3 labels but groups of shape \(2,\)"):
        check_groups(Targets(labels, groups[:2]), "Some")
    with pytest.raises(ValueError, match="group 2 in row 1 of the batch; groups are 0 to 1"):
        check_groups(Targets(labels, groups), "Some", 2)
    with pytest.raises(ValueError, match="group -1 in row 0"):
        check_groups(Targets(labels, groups - 1), "Some")
    for kind in (torch.bool, torch.float32, torch.int32):  # a bool would index as a mask
        with pytest.raises(ValueError, match=f"groups must be int64, not {kind}; call .long"):
            check_groups(Targets(labels, groups.to(kind)), "Some")


def test_embeddings_that_are_no_table_are_refused():
    for shape in ((4,), (4, 3, 1)):
        with pytest.raises(ValueError, match=r"student's embeddings must be \(batch, dimensions\)"):
            check_batch(torch.randn(shape), torch.zeros(4, dtype=torch.int64))


def test_the_balanced_rows_are_a_mask():
    labels = torch.zeros(4, dtype=torch.int64)
    mask = torch.tensor([True, False, True, True])
    assert check_balanced(Targets(labels)) is None
    assert check_balanced(Targets(labels, balanced=mask)) is mask
    for wrong in (mask.long(), mask.to(torch.uint8), mask[:3]):
        with pytest.raises(ValueError, match="4 labels but targets.balanced is"):
            check_balanced(Targets(labels, balanced=wrong))


def test_rows_of_maps_belong_to_the_embeddings():
    five, one = torch.randn(5, 3), (torch.randn(1, 2, 4, 4),)
    with pytest.raises(ValueError, match="1 rows of the student and 1 of the teacher, beside 5"):
        teacher_maps(Output(five, features=one), Output(five, features=one), "Some")


def test_maps_that_are_not_finite_are_said_to_be_whose():
    labels = torch.zeros(2, dtype=torch.int64)
    good = Output(torch.randn(2, 3), features=(torch.randn(2, 4, 2, 2),))
    bad = good._replace(features=(good.features[0] / 0,))
    for pair, whose in (((bad, good), "student"), ((good, bad), "teacher")):
        with pytest.raises(ValueError, match=f"2 of 2 {whose} maps are NaN"):
            paired_maps(*pair, Targets(labels), "last_map", "Some")


def test_relations_need_one_batch():
    labels = Targets(torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="4 embeddings of the student, 3 of the teacher"):
        relational(Output(torch.randn(4, 3)), Output(torch.randn(3, 5)), labels, "Some")


def test_class_rows_are_refused_in_words():
    with pytest.raises(ValueError, match="Some needs the teacher's class rows and got none"):
        class_rows(None, "Some")
    for wrong in (torch.ones(3), torch.ones(0, 3), torch.ones(2, 3, dtype=torch.int64)):
        with pytest.raises(ValueError, match="class rows as floating-point numbers of shape"):
            class_rows(wrong, "Some")
    with pytest.raises(ValueError, match="1 of Some's 2 class rows are zero.*row 1"):
        class_rows(torch.tensor([[1.0, 0], [0, 0]]), "Some")
