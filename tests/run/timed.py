"""`testbed run SPEC` with times of its own: ``timed.py SPEC '{"liveness": 3, "outage": 4}' [OPTIONS]``."""

import json
import sys
from dataclasses import replace
from pathlib import Path

from testbed.cli.progress import PlainProgress
from testbed.report.text import report_text
from testbed.run import directory as directories
from testbed.run.controller import execute
from testbed.run.freeze import Timing
from testbed.run.pipeline import Options, prepare

request = replace(prepare(Options(Path(sys.argv[1]))), timing=Timing(**json.loads(sys.argv[2])))
directory = directories.create(request.plan.run)
outcome = execute(request, directory, PlainProgress(sys.stderr))
sys.stdout.write(report_text(outcome.state, outcome.judgement, directory))
for warning in outcome.warnings:
    sys.stderr.write(f"warning: {warning}\n")
sys.exit(outcome.judgement.exit_code)
