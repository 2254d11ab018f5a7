"""Problems from files that the user gives, and nanochat's ChatCORE over those that it is made of.

`problems` reads files of every form and says whether an answer is right; `solving` has a model answer them;
`chatcore` averages what came out; `programs` runs HumanEval's, in a sandbox or not at all.
"""

from nanosft.evaluate.tasks.problems import Problem, Task, is_right, list_task_files, read_tasks
from nanosft.evaluate.tasks.programs import Sandbox, make_program
from nanosft.evaluate.tasks.solving import choose_letters, score_tasks

__all__ = [
    "Problem",
    "Sandbox",
    "Task",
    "choose_letters",
    "is_right",
    "list_task_files",
    "make_program",
    "read_tasks",
    "score_tasks",
]
