"""Generate the man page and the shell completions from the argument parser.

``make man`` runs this program after a change of the options or of their help. It writes the files
into ``share/``, or into the directory given as its argument, at the paths below ``share/`` that
they have once installed.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import shtab
from argparse_manpage.manpage import Manpage

from agent import __version__
from agent.config import FORMATS
from agent.grammar import build_parser
from agent.stream.filter_ranges import SCOPES
from agent.stream.filter_values import BOUND
from agent.stream.filters import DIRECTIONS, EVENTS, STATES

HERE = Path(__file__).parent
# Values that are completed. --proto and --family accept other ones too: the kernel's names.
VALUES = {
    "proto": ("tcp", "udp", "udplite", "raw", "icmp", "unix", "netlink", "packet", "vsock"),
    "family": ("inet", "inet6", "unix", "netlink", "packet"),
    "state": STATES,
    "direction": (*DIRECTIONS, BOUND),
    "scope": SCOPES,
    "event": EVENTS,
    "output": FORMATS,
}

# What each shell runs to complete a path, and an address or URL, of which unix:PATH can be
# completed. fish passes --option=VALUE as one word. shtab lets bash quote the special characters
# in the output of functions with "file" in their names.
PATH = {
    "bash": "_sockagent_files",
    "zsh": "_files",
    "fish": "(_sockagent_files)",
    "preamble": {
        "bash": '_sockagent_files() { compgen -f -- "$1"; }',
        "fish": """\
function _sockagent_word
  string replace -r '^--[^=]*=' '' -- (commandline -ct)
end

function _sockagent_files
  __fish_complete_path (_sockagent_word)
end
""",
    },
}
ADDRESS = {
    "bash": "_sockagent_address",
    "zsh": "_sockagent_address",
    "fish": "(_sockagent_address)",
    "preamble": {
        "bash": '_sockagent_address() { compgen -W unix: -- "$1"; }',
        "zsh": """\
_sockagent_address() {
  if compset -P unix:; then _files; else compadd -S '' unix:; fi
}
""",
        "fish": """\
function _sockagent_address
  set -l word (_sockagent_word)
  if string match -q 'unix:*' -- $word
    printf 'unix:%s\\n' (__fish_complete_path (string replace unix: '' -- $word))
  else
    echo unix:
  end
end
""",
    },
}

# shtab's function for bash expects --option VALUE in words of their own, where bash splits
# --option=VALUE and unix:PATH at "=" and ":".
BASH_WRAPPER = """

_sockagent() {
  local -a words=("${COMP_WORDS[@]:0:COMP_CWORD+1}")
  if ((COMP_CWORD == 1)) && [[ ${words[1]} == [!-]* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "events fleet page top" -- "${words[1]}")
    return
  fi
  if ((COMP_CWORD == 2)) && [[ ${words[1]} == fleet ]]; then
    mapfile -t COMPREPLY < <(compgen -W "config init --help" -- "${words[2]}")
    return
  fi
  if ((COMP_CWORD > 1)) && [[ ${words[1]} == events ]]; then
    local choices=
    ((COMP_CWORD == 2)) && choices="enable disable status --help"
    ((COMP_CWORD == 3)) && [[ ${words[2]} == enable ]] && choices=--udp
    mapfile -t COMPREPLY < <(compgen -W "$choices" -- "${words[-1]}")
    return
  fi
  if ((COMP_CWORD > 1)) && [[ ${words[1]} == page && ${words[-1]} == --no* ]]; then
    mapfile -t COMPREPLY < <(compgen -W --no-open -- "${words[-1]}")
    return
  fi
  if ((COMP_CWORD > 1)) && [[ ${words[1]} == top && ${words[-1]} == --read-* ]]; then
    mapfile -t COMPREPLY < <(compgen -W --read-only -- "${words[-1]}")
    return
  fi
  [[ ${words[-1]} == [=:] ]] && words+=("")
  local option=${words[-2]} value=${words[-1]}
  if [[ $option == : ]]; then
    COMPREPLY=()
    if [[ ${words[-3]} == unix ]]; then
      compopt -o filenames 2>/dev/null
      mapfile -t COMPREPLY < <(_sockagent_files "$value")
    fi
    return
  fi
  [[ $option == = ]] && option=${words[-3]}
  [[ $option == --@(listen|connect) ]] && compopt -o nospace 2>/dev/null
  local -a COMP_WORDS=("${words[0]}" "$option" "$value")
  local COMP_CWORD=2
  _shtab_sockagent
}

complete -F _sockagent sockagent
"""


# The parser of the options does not have the commands events, fleet, page and top.
ZSH_EVENTS = """\
_shtab_sockagent() {
  if (( CURRENT == 2 )) && [[ $words[2] == [^-]* ]]; then
    compadd events fleet page top
    return
  fi
  if (( CURRENT > 2 )) && [[ $words[2] == events ]]; then
    if (( CURRENT == 3 )); then
      compadd -- enable disable status --help
    elif (( CURRENT == 4 )) && [[ $words[3] == enable ]]; then
      compadd -- --udp
    fi
    return
  fi
  if (( CURRENT == 3 )) && [[ $words[2] == fleet ]]; then
    compadd -- config init --help
    return
  fi
  if (( CURRENT > 2 )) && [[ $words[2] == page && $words[CURRENT] == --no* ]]; then
    compadd -- --no-open
    return
  fi
  if (( CURRENT > 2 )) && [[ $words[2] == top && $words[CURRENT] == --read-* ]]; then
    compadd -- --read-only
    return
  fi
"""
FISH_EVENTS = """
function _sockagent_events
  set -l words (commandline -opc)
  test (count $words) -gt 1; and test "$words[2..]" = "$argv"
end

complete -c sockagent -f -n 'test (count (commandline -opc)) -eq 1' -a events \
  -d 'Set up, remove or show the trace instance of kernel events.'
complete -c sockagent -f -n 'test (count (commandline -opc)) -eq 1' -a fleet \
  -d 'Set up a NATS broker for a fleet.'
complete -c sockagent -f -n '_sockagent_events fleet' -a 'config init'
complete -c sockagent -f -n 'test (count (commandline -opc)) -eq 1' -a page \
  -d 'Show the sockets in a browser.'
complete -c sockagent -n '__fish_seen_subcommand_from page' -l no-open -d 'Open no browser.'
complete -c sockagent -f -n 'test (count (commandline -opc)) -eq 1' -a top \
  -d 'Show a live screen of the sockets.'
complete -c sockagent -n '__fish_seen_subcommand_from top' -l read-only -d 'Send no signals.'
complete -c sockagent -f -n '_sockagent_events events' -a 'enable disable status'
complete -c sockagent -f -n '_sockagent_events events enable' -l udp \
  -d 'Also record which process sends UDP datagrams.'
"""


def man_page() -> str:
    """Return the man page: the parser's options and the sections of sockagent.man."""
    # argparse wraps lines at the width of the terminal. In roff, a line must not begin with a
    # quote or a full stop from the middle of a sentence.
    os.environ["COLUMNS"] = "100000"
    page = Manpage(build_parser())
    page.description = "report which process opened or closed which socket"
    page.manual = "User Commands"
    page.source = f"sockagent {__version__}"
    page.date = ""  # The page changes with the options, and not with the day of the build.
    page.parse_include(HERE / "sockagent.man")
    return str(page).replace(".SH COMMENTS", ".SH NOTES")


def completions(shell: str) -> str:
    """Return the completions for a shell: bash, zsh or fish."""
    parser = build_parser()
    for action in parser._actions:  # noqa: SLF001 (argparse has no public list of the options)
        if action.metavar in ("PATH", "FILE"):
            action.complete = PATH
        elif action.dest in ("listen", "connect"):
            action.complete = ADDRESS
        elif action.dest in VALUES and action.nargs != 0:
            action.choices = VALUES[action.dest]
    text = shtab.complete(parser, shell)
    if shell == "bash":
        text += BASH_WRAPPER
    if shell == "fish":
        text += FISH_EVENTS
    if shell == "zsh":
        text = text.replace("_shtab_sockagent() {\n", ZSH_EVENTS)
        # "=" after the name: accept --option=VALUE as well as --option VALUE.
        text = re.sub(r'^(  (?:"\*)?"?--[a-z-]+)(?=\[.*\]:)', r"\1=", text, flags=re.MULTILINE)
        # With shtab's specifications of arguments that are not options, zsh completes no options
        # after a target.
        text = re.sub(r'^  "\(\*\)::.*:"\n', "", text, flags=re.MULTILINE)
        text = text.replace(
            "(': :_shtab_sockagent_commands' '*::: :->sockagent')", "('*:target:()')"
        )
    return text


def main() -> None:
    """Write the files."""
    share = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "share"
    files = {
        "man/man1/sockagent.1": man_page(),
        "bash-completion/completions/sockagent": completions("bash"),
        "zsh/site-functions/_sockagent": completions("zsh"),
        "fish/vendor_completions.d/sockagent.fish": completions("fish"),
    }
    for name, text in files.items():
        path = share / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


main()
