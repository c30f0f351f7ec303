"""``galbatch completion``: the script that makes a shell complete commands, options and file names."""

from typing import Any, cast

import click


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash:  galbatch completion bash > ~/.local/share/bash-completion/completions/galbatch
    zsh:   galbatch completion zsh > "${fpath[1]}/_galbatch"
    fish:  galbatch completion fish > ~/.config/fish/completions/galbatch.fish
    """
    from click.shell_completion import get_completion_class

    from galbatch.cli.main import cli

    completion = cast(Any, get_completion_class(shell))(cli, {}, "galbatch", "_GALBATCH_COMPLETE")
    # completion.source() would first run bash to learn its version; the script itself is the same.
    click.echo(completion.source_template % completion.source_vars())
