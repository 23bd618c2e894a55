"""The command `holdfast`, choosing no runtime but ONNX Runtime: to measure Holdfast on what the peers run.

A training is a process of its own, which imports this file too.
"""

from holdfast.cli import main
from holdfast.flow import parity

parity.FASTER = {}

if __name__ == "__main__":
    main()
