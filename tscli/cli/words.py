"""The words of a command line: what is meant by an unknown one, and what follows an option."""

from __future__ import annotations

from tscli.config import did_you_mean


def closest(name: str, commands: list[str]) -> str:
    """The end of an error line about an unknown command."""
    if name.endswith(".py"):
        return f"to run a script of your own, `tscli run {name}`"
    hint = did_you_mean(name, commands)
    # "teacher" and "trian" mean train-teacher: compare with the words of a command as well.
    words = {word: command for command in commands for word in command.split("-")}
    if not hint.startswith("did"):
        by_word = did_you_mean(name, words)
        if by_word.startswith("did"):
            return f'did you mean "{words[by_word.split(chr(34))[1]]}"?'
    return hint


def word_after(option: str, words: list[str]) -> str | None:
    """What an option is given; None where it is not there."""
    for position, word in enumerate(words):
        if word == option:
            return words[position + 1] if position + 1 < len(words) else None
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None
