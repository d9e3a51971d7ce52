"""``testbed completion``: click's own completion, printed for a shell."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the code that completes commands in a shell.

    \b
    bash: eval "$(testbed completion bash)"                       in ~/.bashrc
    zsh:  eval "$(testbed completion zsh)"                        in ~/.zshrc
    fish: testbed completion fish > ~/.config/fish/completions/testbed.fish
    """  # noqa: D301  click's mark needs the real character
    from click.shell_completion import BashComplete, FishComplete, ZshComplete

    from testbed.cli.main import cli

    kind = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}[shell]
    click.echo(kind(cli, {}, "testbed", "_TESTBED_COMPLETE").source())
