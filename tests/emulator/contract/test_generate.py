"""The generator reads a wheel as text: a small one, written here in the shape of the real one."""

import zipfile
from pathlib import Path

from emulator.contract import generate

OPERATIONS = """
def build_put_request(name, **kwargs):
    _url = kwargs.pop("template_url", "WS/jobs/{id}")
    path_format_arguments = {
        "workspaceName": _SERIALIZER.url("workspace_name", w, 'str', pattern=r'^[a-z]+$'),
        "id": _SERIALIZER.url("id", name, 'str', pattern=r'^[a-z]+$'),
    }
    return HttpRequest(method="PUT", url=_url)

def build_list_request(**kwargs):
    _url = kwargs.pop("template_url", "WS/jobs")
    return HttpRequest(method="GET", url=_url)

def build_share_request(**kwargs):
    _url = kwargs.pop("template_url", "WS/shares")
    return HttpRequest(method="GET", url=_url)

class Operations:
    def put(self, name, body):
        _json = self._serialize.body(body, 'Job')
        request = build_put_request(name)
        if response.status_code not in [200, 202]:
            raise HttpResponseError(response=response)
        if response.status_code == 200:
            deserialized = self._deserialize('Job', pipeline_response)
        if response.status_code == 202:
            headers = self._deserialize('str', response.headers.get('Location'))

    def list(self):
        def prepare_request(next_link=None):
            return build_list_request()
        def extract_data(pipeline_response):
            deserialized = self._deserialize("Jobs", pipeline_response)
        def get_next(next_link=None):
            if response.status_code not in [200]:
                raise HttpResponseError(response=response)

    def share(self):
        request = build_share_request()
""".replace("WS", generate.WORKSPACE)

MODELS = '''
class Jobs(Model):
    _attribute_map = {'value': {'key': 'value', 'type': '[Job]'}}

class Job(Model):
    """A job.

    :ivar state: What it does. Possible values include: "On",
     "Off".
    :vartype state: str or
     ~azure.mgmt.models.State
    """
    _validation = {'state': {'readonly': True}, 'size': {'required': True}}
    _attribute_map = {
        'state': {'key': 'state', 'type': 'str'},
        'size': {'key': 'properties.size', 'type': 'int'},
        'kind': {'key': 'odata\\\\.kind', 'type': 'Kind'},
    }

class Kind(Model):
    _attribute_map = {'kind': {'key': 'kind', 'type': 'str'}}
    _subtype_map = {'kind': {'Command': 'Command', 'Spark': 'SparkJob'}}

class Command(Kind):
    _attribute_map = {'kind': {'key': 'kind', 'type': 'str'}}

class Unused(Model):
    _attribute_map = {}
'''

ENUMS = """
class State(str, Enum):
    #: One.
    ON = "On"
    OFF = "Off"

class Other(str, Enum):
    A = "A"
"""


def test_operations_types_and_enumerations_are_read_from_the_text(tmp_path: Path) -> None:
    path = tmp_path / "small.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        root = f"{generate.CLIENTS}v2099_01_01/"
        wheel.writestr(f"{root}operations/_job_operations.py", OPERATIONS)
        wheel.writestr(f"{root}models/_models_py3.py", MODELS)
        wheel.writestr(f"{root}models/_small_enums.py", ENUMS)
    with zipfile.ZipFile(path) as wheel:
        made = generate.contract(wheel, "v2099_01_01", [generate.JOBS])
    assert made == {
        "api_version": "2099-01-01",
        "operations": {
            "PUT {workspace}/jobs/{id}": {
                "request": "Job",
                "responses": {"200": "Job", "202": None},
                "names": {"id": "^[a-z]+$"},
            },
            "GET {workspace}/jobs": {"request": None, "responses": {"200": "Jobs"}},
        },
        "types": {
            "Jobs": {"members": {"value": "[Job]"}},
            "Job": {
                "members": {"state": "State", "properties": "Job.properties", "odata.kind": "Kind"},
                "readonly": ["state"],
            },
            "Job.properties": {"members": {"size": "int"}, "required": ["size"]},
            "Kind": {
                "members": {"kind": "str"},
                "by": "kind",
                "subtypes": {"Command": "Command", "Spark": None},
            },
            "Command": {"members": {"kind": "str"}},
        },
        "enums": {"State": ["Off", "On"]},
    }


REGISTRY_OPERATIONS = """
def build_get_request(name, **kwargs):
    _url = kwargs.pop("template_url", "REGISTRY/models/{name}")
    path_format_arguments = {
        "registryName": _SERIALIZER.url("registry_name", r, 'str', pattern=r'^[a-z]+$'),
    }
    return HttpRequest(method="GET", url=_url)

class Operations:
    def get(self, name):
        request = build_get_request(name)
        if response.status_code not in [200]:
            raise HttpResponseError(response=response)
        deserialized = self._deserialize('Model', pipeline_response)
""".replace("REGISTRY", generate.REGISTRY)

REGISTRY_MODELS = """
class Model(Model):
    _attribute_map = {
        'additional_properties': {'key': '', 'type': '{object}'},
        'name': {'key': 'name', 'type': 'str'},
    }
"""


def test_a_client_of_registries_needs_no_enumerations(tmp_path: Path) -> None:
    path = tmp_path / "small.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        root = f"{generate.CLIENTS}v2099_01_01/"
        wheel.writestr(f"{root}operations/_model_operations.py", REGISTRY_OPERATIONS)
        wheel.writestr(f"{root}models/_models_py3.py", REGISTRY_MODELS)
    with zipfile.ZipFile(path) as wheel:
        made = generate.contract(wheel, "v2099_01_01", [r"GET \{registry\}/models/\{name\}"])
    assert made["operations"] == {
        "GET {registry}/models/{name}": {"request": None, "responses": {"200": "Model"}}
    }
    assert made["types"] == {"Model": {"members": {"name": "str"}}}
    assert made["enums"] == {}
