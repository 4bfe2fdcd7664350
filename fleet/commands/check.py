"""`fleet check`."""

from pathlib import Path

import click

from fleet.options import choose_policy, format_option, path_argument, policy_option, template_option, trust_templates
from fleet.output import visible


@click.command()
@path_argument
@click.option("only_drift", "--drift", is_flag=True, help="Only compare with the template.")
@click.option("--ref", help="A commit to check instead of the working copy.")
@click.option("--base", show_default="the remote's default branch", help="The branch or commit to merge into.")
@format_option("table", "json", "github", help="github: annotations.")
@policy_option
@template_option
def check(
    path: Path,
    *,
    only_drift: bool,
    ref: str | None,
    base: str | None,
    shown: str,
    policy: Path | None,
    template: tuple[str, ...],
) -> None:
    """Show in one table where a service differs from the platform. Status 1 if any finding is an error."""
    from fleet.check import check as checking
    from fleet.check import show as show_check
    from fleet.check.findings import Level

    trust_templates(template)
    choose_policy(policy)
    report = checking.check(checking.Options(path, ref, base, only_drift))
    if shown == "table":
        show_check.table(report)
    else:
        text = show_check.github(report.findings) if shown == "github" else show_check.as_json(report)
        click.echo(visible(text))
    raise SystemExit(any(finding.level is Level.ERROR for finding in report.findings))
