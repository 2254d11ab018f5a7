"""Run the command line: `nanosft …`, and `python -m nanosft …`, the form that torchrun starts.

Light on purpose: worker processes import the main module anew.
"""


def main() -> None:
    """See `nanosft.cli.main`."""
    from nanosft import cli  # noqa: PLC0415 - see above

    cli.main()


if __name__ == "__main__":
    main()
