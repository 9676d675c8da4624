"""Tasks: what to learn, one YAML file each."""

from tscli.tasks.task import Task, load_task, task_names, task_place

__all__ = ["Task", "load_task", "task_names", "task_place"]
