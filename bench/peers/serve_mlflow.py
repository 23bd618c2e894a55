"""MLflow: its scoring server on a Python model that runs the session, under one uvicorn worker without access log."""

import sys
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime as ort
import uvicorn
from mlflow.pyfunc import PythonModel, load_model, save_model
from mlflow.pyfunc.model import PythonModelContext
from mlflow.pyfunc.scoring_server import init


class Flights(PythonModel):
    """Answers rows."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the session."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(context.artifacts["model"], options, providers=["CPUExecutionProvider"])

    def predict(self, context: PythonModelContext, model_input: Any, params: Any = None) -> Any:
        """Probabilities, one for each row."""
        return self.session.run(None, {"x": np.asarray(model_input, dtype=np.float32)})[0].ravel()


if __name__ == "__main__":
    with TemporaryDirectory() as directory:
        save_model(f"{directory}/model", python_model=Flights(), artifacts={"model": sys.argv[1]}, pip_requirements=[])
        app = init(load_model(f"{directory}/model"))
        uvicorn.run(
            app,
            host="127.0.0.1",
            port=int(sys.argv[2]),
            loop="uvloop",
            http="httptools",
            access_log=False,
            log_level="error",
        )
