# testbed: sets told.by.tool round.3
import subprocess

subprocess.run(["testbed", "set", "told.by.tool", "1"], check=True)
