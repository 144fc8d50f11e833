"""What a small dense student keeps of a MoE teacher: Switch Transformers, section 4.2."""


def gain_kept_fraction(teacher: float, student: float, distilled: float) -> float:
    """Return (distilled - student) / (teacher - student), of scores or log likelihoods.

    `student` is the small network trained alone, `distilled` the same one trained with the teacher.

    Source: Switch Transformers (JMLR 2022), Tables 6 to 8.
    """
    if teacher == student:
        raise ValueError("the teacher is no better than the student: nothing could be kept")
    return (distilled - student) / (teacher - student)


def compression_fraction(student_params: float, teacher_params: float) -> float:
    """Return 1 - student / teacher parameters.

    Switch's Table 7 counts the student without its embeddings (198M of 223M) and the teachers with.
    """
    return 1 - student_params / teacher_params
