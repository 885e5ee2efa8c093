"""Declare the commands that repeat tables of the papers: experiment mog25, experiment claims."""

from absl import flags

from ddgan_jax import compiler
from ddgan_jax.cli.arguments import Flag, parse_integers, parse_names, parse_seeds
from ddgan_jax.cli.command import Command


def _mog25(values: flags.FlagValues) -> None:
    compiler.keep_programs()
    from ddgan_jax.experiments import mog25, mog25_cells

    mog25.run(
        values.out,
        methods=parse_names("methods", values.methods, mog25_cells.METHODS),
        steps=parse_integers("steps", values.steps),
        # All seeds of a cell are trained side by side and are in memory at the same time.
        seeds=parse_seeds(values.seeds, most=1_000),
        setting=values.setting,
        iterations=values.iterations,
    )


def _claims(values: flags.FlagValues) -> None:
    from ddgan_jax.experiments import claims, claims_rows

    tables = parse_names("tables", values.tables, claims_rows.TABLES)
    known = dict.fromkeys(row for table in tables for row in claims_rows.TABLES[table].rows)
    claims.run(
        values.out,
        tables=tables,
        rows=parse_names("rows", values.rows, known) if values.rows else (),
        seeds=parse_seeds(values.seeds, most=1_000),
        jobs=values.jobs,
    )


COMMANDS = {
    "experiment claims": Command(
        summary="the claims of both papers, at the size of 8 x 8 digits",
        description=(
            "Train the rows of the tables with each seed and measure them: numbers of steps, the\n"
            "latent, what the generator predicts; weight, form and regulariser of SIDDM. Every\n"
            "row and seed is a process of its own, held to one processor core, and a JSON file in\n"
            "--out: numbers, command, commit, machine and time. What --out holds is kept, so that\n"
            "the same command goes on after a stop. A row takes two to five minutes of a core."
        ),
        flags=(
            Flag("out", "FOLDER", "folder of the results", required=True),
            Flag(
                "tables",
                "LIST",
                "stacked_ddgan, stacked_siddm, digits_siddm",
                "stacked_ddgan,stacked_siddm,digits_siddm",
            ),
            Flag("rows", "LIST", "rows of these tables, e.g. T1,T4; without it all", ""),
            Flag("seeds", "LIST", "seeds of each row, e.g. 0-2", "0-2"),
            Flag("jobs", "N", "rows side by side", 1, "integer", at_least=1, at_most=256),
        ),
        examples=(
            "ddgan experiment claims --jobs=2 --out=results/claims",
            "ddgan experiment claims --tables=stacked_ddgan --rows=T4,no_latent --seeds=0 \\\n"
            "    --out=results/claims",
        ),
        run=_claims,
    ),
    "experiment mog25": Command(
        summary="the 25-Gaussian table of the SIDDM paper",
        description=(
            "Train cells of Table 1 of the SIDDM paper, all seeds of a cell at once, and write a\n"
            "table (mean and spread over the seeds) beside the paper's numbers, the same as JSON,\n"
            "and a scatter picture of each cell. Cells that --out holds already are kept.\n"
            'Setting "paper" is that of the authors, a matter for an accelerator; "reduced"\n'
            "(rescaled data, other learning rates, fewer and smaller iterations) takes\n"
            "minutes on a CPU."
        ),
        flags=(
            Flag("out", "FOLDER", "folder of the table and the pictures", required=True),
            Flag(
                "methods",
                "LIST",
                "rows of the table, e.g. gan,ddgan,siddm,siddm_no_afd",
                "ddgan,siddm",
            ),
            Flag("steps", "LIST", "columns of the table: denoising steps T", "4"),
            Flag("seeds", "LIST", "seeds of each cell, e.g. 0-4", "0"),
            Flag("setting", "NAME", "size of the experiment: reduced or paper", "reduced"),
            Flag(
                "iterations", "N", "train steps of each cell; 0: as the setting says", 0, "integer"
            ),
        ),
        examples=(
            "ddgan experiment mog25 --methods=siddm --steps=4 --out=runs/mog25",
            "ddgan experiment mog25 --setting=paper --methods=gan,ddgan,siddm,siddm_no_afd \\\n"
            "    --steps=2,4,8,16 --seeds=0-4 --out=runs/table1",
        ),
        run=_mog25,
    ),
}
