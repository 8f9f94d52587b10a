"""HintonKD: its formula by loop, by hand, and where its logits come from."""

import copy
import math

import pytest
import torch
from torch import nn

from kdlab.losses.arcface import ArcFace
from kdlab.losses.hinton_kd import HintonKD, hinton_kd, softened
from kdlab.outputs import Output, Targets


def by_loop(student, teacher, temperature):
    total = 0.0
    for z_s, z_t in zip(student.tolist(), teacher.tolist(), strict=True):
        q, p = ([math.exp(z / temperature) for z in row] for row in (z_s, z_t))
        q, p = ([v / sum(row) for v in row] for row in (q, p))
        total += sum(b * math.log(b / a) for a, b in zip(q, p, strict=True))
    return temperature ** 2 * total / len(student)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outputs(classes=5):
    return (Output(draw(6, 3), 4 * draw(6, classes, seed=1)),
            Output(draw(6, 7, seed=2), 4 * draw(6, classes, seed=3)))


TARGETS = Targets(torch.arange(6))


@pytest.mark.parametrize("temperature", [4, 1, 0.5, 20])
@pytest.mark.parametrize("weight", [1, 0.3])
def test_the_formula_by_loop(temperature, weight):
    student, teacher = outputs()
    expected = weight * by_loop(student.logits, teacher.logits, temperature)
    term = HintonKD(temperature, weight)(student, teacher, TARGETS)
    assert list(term) == ["logits"]
    assert term["logits"].item() == pytest.approx(expected, rel=1e-9)


def test_it_is_4_and_1_when_nothing_is_said():
    student, teacher = outputs()
    assert HintonKD()(student, teacher, TARGETS)["logits"].item() == pytest.approx(
        by_loop(student.logits, teacher.logits, 4), rel=1e-9)
    assert float(hinton_kd(student.logits, teacher.logits)) == pytest.approx(
        by_loop(student.logits, teacher.logits, 4), rel=1e-9)


def test_hand_number_and_hand_gradient():
    """T = 2, teacher logits (2 ln 3, 0): p = (3/4, 1/4); student (0, 0): q = (1/2, 1/2).

    KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.130812; times 4. Gradient: T² (q - p) / T = 2 (-1/4, 1/4).
    """
    student = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[2 * math.log(3), 0]], dtype=torch.float64)
    assert softened(teacher, 2).exp()[0].tolist() == pytest.approx([0.75, 0.25])
    loss = hinton_kd(student, teacher, 2)
    loss.backward()
    assert loss.item() == pytest.approx(4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)))
    assert student.grad[0].tolist() == pytest.approx([-0.5, 0.5])


def test_gradcheck():
    student, teacher = outputs()
    assert torch.autograd.gradcheck(lambda z: hinton_kd(z, teacher.logits, 4),
                                    student.logits.requires_grad_())


def test_the_gradient_keeps_its_size_when_the_temperature_rises():
    """High T, logits of mean 0: T² times the gradient tends to (z_s - z_t) / C, free of T."""
    student, teacher = (o.logits - o.logits.mean(1, keepdim=True) for o in outputs())
    student.requires_grad_()
    hinton_kd(student, teacher, 1e4).backward()
    torch.testing.assert_close(student.grad, (student - teacher).detach() / 5 / 6,
                               rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_equal_logits_cost_nothing_and_shifting_a_row_neither(dtype):
    z = (30 * draw(6, 9)).to(dtype).requires_grad_()
    loss = hinton_kd(z, z.detach(), 4)
    loss.backward()
    assert loss.item() == 0 and z.grad.abs().max() < 1e-6
    z = z.detach().double()
    assert hinton_kd(z + draw(6, 1, seed=4), z).item() == pytest.approx(0, abs=1e-12)
    assert hinton_kd(z + draw(6, 9, seed=4), z).item() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_certain_networks_that_disagree_stay_finite(dtype):
    one, other = (torch.tensor([row, [0, 0, 0]], dtype=dtype)
                  for row in ([3e4, 0, -3e4], [-3e4, 0, 3e4]))
    one.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = hinton_kd(one, other, 1)
    loss.backward()
    assert loss.item() == pytest.approx(3e4, rel=1e-2) and one.grad.isfinite().all()


def test_half_precision_is_judged_in_float32():
    student, teacher = (Output(o.embedding, o.logits.bfloat16()) for o in outputs())
    student.logits.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        term = HintonKD()(student, teacher, TARGETS)["logits"]
    term.backward()
    assert term.dtype == torch.float32 and student.logits.grad.dtype == torch.bfloat16
    assert term.item() == pytest.approx(
        by_loop(student.logits.double(), teacher.logits.double(), 4), rel=1e-5)


def heads(size=3):
    torch.manual_seed(0)
    return ArcFace(size, 5).double(), ArcFace(7, 5).double()


def test_logits_made_of_embeddings():
    arcface, of_teacher = heads()
    student, teacher = (Output(o.embedding.requires_grad_()) for o in outputs())
    loss = HintonKD(student_logits=arcface.logits, teacher_logits=of_teacher.logits)
    term = loss(student, teacher, TARGETS)["logits"]
    assert term.item() == pytest.approx(by_loop(arcface.logits(student.embedding),
                                                of_teacher.logits(teacher.embedding), 4), rel=1e-9)
    term.backward()
    assert student.embedding.grad.any() and arcface.weight.grad.any()
    assert teacher.embedding.grad is None and of_teacher.weight.grad is None


def test_a_function_that_is_given_goes_before_the_outputs_logits():
    """So a network and the cache of its embeddings teach alike."""
    arcface, of_teacher = heads()
    student, teacher = outputs()
    loss = HintonKD(student_logits=arcface.logits, teacher_logits=of_teacher.logits)
    whole = loss(student, teacher, TARGETS)["logits"]
    bare = loss(Output(student.embedding), Output(teacher.embedding), TARGETS)["logits"]
    assert torch.equal(whole, bare)


def test_one_side_by_function_and_the_other_by_output():
    arcface, _ = heads()
    student, teacher = outputs()
    term = HintonKD(student_logits=arcface.logits)(
        Output(student.embedding), teacher, TARGETS)["logits"]
    assert term.item() == pytest.approx(
        by_loop(arcface.logits(student.embedding), teacher.logits, 4), rel=1e-9)


@pytest.mark.parametrize("as_module", [False, True])
def test_the_functions_networks_are_no_part_of_the_loss(as_module):
    heads = [nn.Linear(3, 5).double(), nn.Linear(7, 5).double()]
    functions = heads if as_module else [head.forward for head in heads]
    loss = HintonKD(4, 1, *functions)
    assert loss.state_dict() == {} and not [*loss.parameters()] and not [*loss.children()]
    both = nn.ModuleDict({"head": heads[0], "kd": loss})
    assert sorted(both.state_dict()) == ["head.bias", "head.weight"]
    heads[1].train()
    loss.eval()
    assert heads[1].training  # its owner's affair
    student, teacher = outputs()
    loss(student, teacher, TARGETS)["logits"].backward()
    assert heads[0].weight.grad.any() and heads[1].weight.grad is None
    twin = copy.deepcopy(both)  # the copy's function is the copied head's
    with torch.no_grad():
        twin["head"].weight.zero_()
    assert (twin["kd"](student, teacher, TARGETS)["logits"]
            != both["kd"](student, teacher, TARGETS)["logits"])


def test_what_it_needs_of_the_teacher():
    assert HintonKD().needs == {"logits"}
    assert HintonKD(student_logits=lambda x: x).needs == {"logits"}
    assert HintonKD(teacher_logits=lambda x: x).needs == {"embedding"}


def test_the_weight_may_move():
    student, teacher = outputs()
    loss = HintonKD(weight=4)
    first = loss(student, teacher, TARGETS)["logits"]
    loss.weight = 1.0
    torch.testing.assert_close(first, 4 * loss(student, teacher, TARGETS)["logits"])


def test_wrong_input_is_refused_in_words():
    student, teacher = outputs()
    bare, six = Output(teacher.embedding), outputs(6)[1]
    for arguments, message in (
        ((student, None), "HintonKD needs a teacher's logits, got no teacher"),
        ((student, bare), "HintonKD compares logits and the teacher has none"),
        ((Output(student.embedding), teacher), "HintonKD compares logits and the student has none"),
        ((student, six), r"student's are \(6, 5\), the teacher's \(6, 6\)"),
    ):
        with pytest.raises(ValueError, match=message):
            HintonKD()(*arguments, TARGETS)
    with pytest.raises(ValueError, match="got no teacher"):
        HintonKD(teacher_logits=lambda x: x)(student, None, TARGETS)
    with pytest.raises(ValueError, match=r"6 .* embeddings but labels of shape \(4,\)"):
        HintonKD()(student, teacher, Targets(torch.arange(4)))
    broken = student.logits.clone()
    broken[2, 1], broken[4, 0] = torch.inf, torch.nan
    with pytest.raises(ValueError, match="2 of 6 rows of the student's logits.*row 2"):
        HintonKD()(Output(student.embedding, broken), teacher, TARGETS)
    with pytest.raises(ValueError, match="2 of 6 rows of the teacher's logits.*row 2"):
        HintonKD()(student, Output(teacher.embedding, broken), TARGETS)
    for embedding, message in ((student.embedding / 0, "6 of 6 student embeddings"),
                               (student.embedding, "built for embeddings of 7 dimensions, got 3")):
        with pytest.raises(ValueError, match=message):
            HintonKD(student_logits=heads()[1].logits)(Output(embedding), teacher, TARGETS)


def test_wrong_options_are_refused_in_words():
    for value in (0, -1, math.nan):
        with pytest.raises(ValueError, match="temperature must be above 0, not"):
            HintonKD(temperature=value)
    with pytest.raises(ValueError, match="teacher_logits must be a function.*not Tensor"):
        HintonKD(teacher_logits=torch.zeros(2))
