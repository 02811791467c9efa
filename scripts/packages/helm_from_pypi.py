"""Stands in for `helm lint` and `helm template` where helm is missing: helm_from_pypi.py lint|template …

Charts are checked and rendered by Helm's own library, which the package `helm-python-sdk` (PyPI, Apache-2.0) carries. Takes
what scripts/test_helm.sh asks for and refuses everything else: an option that it passed over would be a check that was not made.
Left out: what needs a cluster."""

import argparse
import sys

import helm_python as helm

# How bad a message of `lint` is; `--strict` ends on warnings too.
WARNING = 2


def merged(below, above):
    """Values over values, as Helm lays them: objects member by member, all else whole; `null` takes a value away."""
    out = dict(below)
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(out.get(key), dict):
            value = merged(out[key], value)
        out[key] = value
    return out


def lint(args):
    found = helm.lint(args.chart, strict=args.strict)
    bad = [m for m in found["messages"] if m["severity"] > WARNING or (args.strict and m["severity"] == WARNING)]
    for message in bad:
        print(f"{message['path']}: {message['error']}")
    for error in found["errors"] or []:
        print(error)
    return 1 if bad or found["errors"] else 0


def template(args):
    values = {}
    for path in args.values:
        with open(path, encoding="utf-8") as file:
            values = merged(values, helm.values_from_yaml(file.read()))
    for expression in args.set:
        values = merged(values, helm.parse_set_string(expression))
    with helm.Chart.load(args.chart) as chart:
        rendered = chart.render(values, name=args.name, namespace=args.namespace)
    for path, text in sorted(rendered.items()):
        # What is not a manifest is printed after an installation, not applied.
        if path.endswith((".yaml", ".yml")) and text.strip():
            print(f"---\n# Source: {path}\n{text.strip()}")
    return 0


def main():
    parser = argparse.ArgumentParser(prog="helm_from_pypi.py")
    commands = parser.add_subparsers(required=True)
    checked = commands.add_parser("lint")
    checked.add_argument("--strict", action="store_true")
    checked.add_argument("--quiet", action="store_true", help="only what is wrong is printed in any case")
    checked.add_argument("chart")
    checked.set_defaults(run=lint)
    made = commands.add_parser("template")
    made.add_argument("name")
    made.add_argument("chart")
    made.add_argument("--namespace", default="default")
    made.add_argument("--values", action="append", default=[])
    made.add_argument("--set", action="append", default=[])
    made.set_defaults(run=template)
    args = parser.parse_args()
    try:
        return args.run(args)
    except helm.HelmError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
