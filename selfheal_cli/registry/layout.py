"""What the files of a version and of its base are called, and what a version gives."""

ADAPTER_FILE = "adapter.safetensors"
SEGMENTS_FILE = "segments.json"  # which adapter each segment has; there where any has one
PACK_FILE = "segments.safetensors"  # adapters of segments, in a logged model of their own
LINK_FILE = "selfheal.json"
BASE_WEIGHTS_FILE = "base.safetensors"
BASE_DOCUMENT_FILE = "model.json"
REQUIREMENTS_FILE = "requirements.txt"
CODE_FILE = "code.zip"  # one file, since each file of a version is a request to its store
OUTPUTS = ("probability", "label")  # what a version gives, the default first
