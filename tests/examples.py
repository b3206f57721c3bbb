#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""examples.py VNVRAM PAGE.pod COMMAND OPTION... - does the page show each option of the command in use?

An example is an indented line of the page with the command in it, as a shell or /etc/fstab would have it:
beside the description of the option (below its =item), or outside of all descriptions, as in EXAMPLES.  Each example is
given to the program, too, which only parses it, since --help stands behind it.  Prints one line for each
option without an example and each example that the program refuses.
"""

import fnmatch
import re
import shlex
import subprocess
import sys


def examples_of(page):
    """Yields (line, options described there, or None outside of descriptions)."""
    item = None
    for line in re.sub(r"\\\n\s+", " ", page).splitlines():
        if re.match(r"=(head|back)", line):
            item = None
        elif line.startswith("=item"):
            item = re.findall(r"B<(-[^<>]*)>", line)
        elif line.startswith(" "):
            yield line.strip(), item


def simple_commands(line):
    """The words of each command of a shell's line, without its prompt and redirections."""
    lexer = shlex.shlex(re.sub(r"^[#$] ", "", line), posix=True, punctuation_chars=";&|<>()")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words = []
    try:
        for token in lexer:
            if token.strip(";&|()") == "":
                yield words
                words = []
            else:
                words.append(token)
    except ValueError:  # not a shell's line: prose with an apostrophe
        words = []
    yield words


def arguments(line, command):
    """The argument lists for "vnvram COMMAND" that stand in the line."""
    for words in simple_commands(line):
        if "vnvram" in words[:-1] and words[words.index("vnvram") + 1] == command:
            yield words[words.index("vnvram") + 2:]
        elif command == "mount" and words[:3] == ["mount", "-t", "vnvram"]:
            yield words[3:]
        elif command == "mount" and len(words) == 6 and words[2] == "vnvram":
            yield ["-o", words[3]]


def options_in(words):
    """What --list-options would call the options among them, as in "-o ro", "-n", "--json"."""
    for word, value in zip(words, words[1:] + [""]):
        if word == "-o":
            yield from ("-o " + w.split("=")[0] for w in re.findall(r'(?:[^,"]|"[^"]*")+', value))
        elif word.startswith("-"):
            yield word.split("=")[0]


def redirected(words):
    """Without redirections, which the parser of options is not to see: 3<key is three words here."""
    kept = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in ("<", ">", ">>"):
            skip = True
            if kept and kept[-1].isdigit():
                kept.pop()
        else:
            kept.append(word)
    return kept


def main(program, path, command, *options):
    with open(path, encoding="utf-8") as f:
        page = f.read()
    shown = set()
    for line, item in examples_of(page):
        for words in arguments(line, command):
            words = redirected(words)
            used = set(options_in(words))
            shown |= used if item is None else {u for u in used if any(fnmatch.fnmatch(u, i) for i in item)}
            run = subprocess.run([program, command, *words, "--help"], stdin=subprocess.DEVNULL,
                                 capture_output=True, text=True, check=False)
            if run.returncode != 0:
                print(f"the example is refused: {line}: {run.stderr.strip()}")
    for option in options:
        if not any(fnmatch.fnmatch(u, option) for u in shown):
            print(f"no example of {option}: add a line such as \"    vnvram {command} {option} ...\" to {path}, "
                  f"below the =item of {option} or under EXAMPLES")


main(*sys.argv[1:])
