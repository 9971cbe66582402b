"""What Azure ML accepts and answers, by api-version: generated JSON (generate.py), checked closed
(check.py).

The JSON is generated from the client models and operations of the published azure-ai-ml 1.32.0
(MIT), which ships a whole generated client per api-version. It is a contract of names, members,
types, enumerations and status codes. It knows nothing of roles, quota and regions, nor of what a
value refers to. Azure OpenAI's is made in the same form of two other wheels (generate_openai.py).
"""

from emulator.contract.check import check_request, check_response, versions

__all__ = ["check_request", "check_response", "versions"]
