"""`fleet new`."""

from pathlib import Path

import click

from fleet.options import PATH, data_option, parse_answers


@click.command()
@click.argument("name", type=PATH, help="The service's name, and the folder to write it to.")
@click.option(
    "--template",
    metavar="URL",
    envvar="FLEET_TEMPLATE",
    show_envvar=True,
    show_default="the origin of fleet",
    help="The template.",
)
@data_option
@click.option("--defaults", is_flag=True, help="Ask nothing, and use defaults for all answers without -d.")
def new(name: Path, *, template: str | None, answers: tuple[str, ...], defaults: bool) -> None:
    """Make a service: ask the questions, show the boundary review, then write what `copier copy` writes."""
    from fleet.new import new, template_address

    new(name, template or template_address(), parse_answers(answers), defaults=defaults)
