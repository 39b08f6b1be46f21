"""``eie init``: files to begin with."""

from __future__ import annotations

from pathlib import Path

import click

from eie.options import example, json_option
from eie.output import Output, check_writable_folder

RECIPE = "digits.toml"


def _list(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from eie.packaged import recipes

    Output().table(("recipe", "what it does"), list(recipes().items()))
    ctx.exit()


@click.command(epilog=example("eie init my", "eie init my --recipes"), short_help="Write files to begin with.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--recipes", "with_recipes", is_flag=True, help="Also all recipes of `eie train` and `eie experiment`.")
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_list, help="Name the recipes, and end."
)
@json_option
def init(folder: Path, with_recipes: bool, json_to: str | None) -> None:
    """Write a small network and all that the other commands ask for into DIR, which may be new.

    my_module.py (a torch module that reads digits), model.safetensors (its weights), x.npy (inputs), calibration.npy
    (inputs that fixed-point ranges are chosen on), layer.npz (one layer, for which no torch is needed) and digits.toml
    (a recipe of `eie train`). No file that is there is replaced.
    """
    output = Output(json_to)
    check_writable_folder(folder, "DIR")

    from compiler.files import write_file
    from eie.example_network import files
    from eie.packaged import recipe_folder, recipes

    contents = {**files(), RECIPE: (recipe_folder() / RECIPE).read_bytes()}
    if with_recipes:
        contents |= {f"recipes/{name}": (recipe_folder() / name).read_bytes() for name in recipes()}
    there = [name for name in contents if (folder / name).exists()]
    if there:
        raise click.UsageError(f"{folder} already holds {', '.join(there)}; expected a folder without them")
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_file(folder / name, content)
        output.text(str(folder / name))
    output.text(
        f"\nNext:\n  cd {folder}\n"
        "  eie compile my_module:make_model --weights model.safetensors --calibrate calibration.npy -o net.eie\n"
        "  eie run net.eie --input x.npy"
    )
    output.result({"folder": str(folder), "files": list(contents)})
