"""Engines: where state lives, chosen by URL. `<port>+<scheme>` names the implementation of a port."""

KINDS = {
    "catalog+memory": "holdfast.engines.memory:MemoryCatalog",
    "catalog+sqlite": "holdfast.engines.sqlite:SqliteCatalog",
    "lake+memory": "holdfast.engines.memory:MemoryLake",
    "lake+files": "holdfast.engines.files:FileLake",
    "blobs+memory": "holdfast.engines.memory:MemoryBlobs",
    "blobs+files": "holdfast.engines.blobs:FileBlobs",
}
