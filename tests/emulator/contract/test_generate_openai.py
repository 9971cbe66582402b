"""The generator reads two wheels as text: small ones here, in the shape of the real ones."""

import zipfile
from pathlib import Path

from emulator.contract import check_request, check_response, generate_openai

ACCOUNT = (
    "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}/providers"
    "/Microsoft.CognitiveServices/accounts/{accountName}"
)
OPERATIONS = """
def build_put_request(name, **kwargs):
    _url = kwargs.pop("template_url", "ACCOUNT/deployments/{deploymentName}")
    path_format_arguments = {
        "deploymentName": _SERIALIZER.url("n", name, "str", pattern=r"^[a-z]+$"),
    }
    return HttpRequest(method="PUT", url=_url)

def build_delete_request(name, **kwargs):
    _url = kwargs.pop("template_url", "ACCOUNT/deployments/{deploymentName}")
    return HttpRequest(method="DELETE", url=_url)

class Operations:
    def _put_initial(self, name, body):
        _json = self._serialize.body(body, "Deployment")
        _request = build_put_request(name)
        if response.status_code not in [200, 201]:
            raise HttpResponseError(response=response)
        deserialized = response.stream_download()

    @overload
    def begin_put(self, name, body):
        pass

    def begin_put(self, name, body):
        def get_long_running_output(pipeline_response):
            deserialized = self._deserialize("Deployment", pipeline_response.http_response)

    def _delete_initial(self, name):
        _request = build_delete_request(name)
        if response.status_code not in [202, 204]:
            raise HttpResponseError(response=response)
        headers = self._deserialize("str", response.headers.get("location"))
""".replace("ACCOUNT", ACCOUNT)
MODELS = '''
class ErrorResponse(Model):
    _attribute_map = {"error": {"key": "error", "type": "object"}}

class Deployment(Model):
    """A deployment.

    :ivar state: What it does. Known values are: "On".
    :vartype state: str or ~azure.mgmt.cognitiveservices.models.State
    """
    _validation = {"name": {"readonly": True}}
    _attribute_map = {
        "name": {"key": "name", "type": "str"},
        "state": {"key": "state", "type": "str"},
    }
'''
RESOURCE = """
class Jobs(SyncAPIResource):
    def create(self):
        return self._post(
            "/jobs", body=maybe_transform({}, params.JobParams), cast_to=Job, options=None
        )
    def list(self):
        return self._get_api_list("/jobs", page=SyncCursorPage[Job], model=Job)
    def content(self, job_id):
        return self._get(path_template("/jobs/{job_id}/content", job_id=job_id), cast_to=str)
    def add(self, job_id):
        path = path_template("/jobs/{job_id}/parts", job_id=job_id)
        return self._post(path_template("/jobs/{job_id}/parts", job_id=job_id),
            body=maybe_transform({}, params.JobParams), files=files, cast_to=Job)

class AsyncJobs(AsyncAPIResource):
    def create(self):
        return self._post("/other", cast_to=Job)
"""
JOB = """
class Error(BaseModel):
    code: str

class Job(BaseModel):
    id: str
    kind: Literal["a", "b"]
    error: Optional[Error] = None
    steps: Optional[List[int]] = None
    size: Union[Literal["auto"], int, None] = None
    tags: Optional[Tags] = None
"""
PARAMS = """
class JobParams(TypedDict, total=False):
    model: Required[Union[str, Literal["x"]]]
    rows: Required[str]
    seed: Optional[int]
"""
TAGS = "Tags: TypeAlias = Dict[str, str]"


def wheel(path: Path, files: dict[str, str]) -> zipfile.ZipFile:
    with zipfile.ZipFile(path, "w") as made:
        for name, text in files.items():
            made.writestr(name, text)
    return zipfile.ZipFile(path)


def test_a_long_running_operation_is_put_together_of_its_two_methods(tmp_path: Path) -> None:
    root = "azure/mgmt/cognitiveservices/"
    files = {
        f"{root}_configuration.py": 'kwargs.pop("api_version", "2024-10-01")',
        f"{root}models/_models_py3.py": MODELS,
        f"{root}models/_enums.py": 'class State(str, Enum):\n    ON = "On"\n',
        f"{root}operations/_deployments_operations.py": OPERATIONS,
    }
    with wheel(tmp_path / "m.whl", files) as source:
        made = generate_openai.management(source)
    assert made["api_version"] == "2024-10-01"
    assert made["operations"] == {
        f"PUT {ACCOUNT}/deployments/{{deploymentName}}": {
            "request": "Deployment",
            "responses": {"200": "Deployment", "201": "Deployment"},
            "names": {"deploymentName": "^[a-z]+$"},
        },
        f"DELETE {ACCOUNT}/deployments/{{deploymentName}}": {
            "request": None,
            "responses": {"202": None, "204": None},
        },
    }
    assert made["types"]["Deployment"]["members"] == {"name": "str", "state": "State"}
    assert made["enums"] == {"State": ["On"]}


def test_operations_of_the_openai_client_are_read_with_their_types(tmp_path: Path) -> None:
    files = {
        "openai/resources/jobs.py": RESOURCE,
        "openai/types/job.py": JOB,
        "openai/types/job_params.py": PARAMS,
        "openai/types/shared/tags.py": TAGS,
    }
    with wheel(tmp_path / "o.whl", files) as source:
        client = generate_openai.Client(source)
        operations = client.operations(("jobs",))
        types: dict[str, dict[str, object]] = {}
        client.define("Job", types)
        client.define("JobParams", types)
    assert operations == {
        "POST /openai/v1/jobs": {
            "request": "JobParams",
            "responses": {"200": "Job", "201": "Job"},
        },
        "GET /openai/v1/jobs": {"request": None, "responses": {"200": "Page of Job"}},
        "GET /openai/v1/jobs/{job_id}/content": {"request": None, "responses": {"200": None}},
        "POST /openai/v1/jobs/{job_id}/parts": {
            "request": None,
            "responses": {"200": "Job", "201": "Job"},
        },
    }
    assert types["Job"] == {
        "members": {
            "id": "str",
            "kind": "Job.kind",
            "error": "Job.Error",
            "steps": "[int]",
            "size": "object",
            "tags": "{str}",
        },
        "required": ["id", "kind"],
    }
    assert types["JobParams"]["required"] == ["model", "rows"]
    assert client.enums["Job.kind"] == ["a", "b"]


def test_the_cross_tenant_request_of_azures_guide_is_accepted_and_its_neighbours_are_not() -> None:
    path = ACCOUNT.replace("{", "").replace("}", "") + "/deployments/geo"
    source = path.removesuffix("/deployments/geo")
    model = {"format": "OpenAI", "name": "x", "version": "1", "sourceAccount": source}
    body = {"sku": {"name": "standard", "capacity": 1}, "properties": {"model": model}}
    assert check_request("PUT", path, "2024-10-01", body) == []
    assert "2024-10-21" in check_request("PUT", path, "2024-10-21", body)[0]
    wrong = {**body, "properties": {"model": {**model, "sourceTenant": "x"}}}
    assert "'sourceTenant'" in check_request("PUT", path, "2024-10-01", wrong)[0]


def test_what_azure_says_otherwise_than_openai_is_known() -> None:
    job = {
        "id": "ftjob-1",
        "object": "fine_tuning.job",
        "created_at": 1,
        "model": "m",
        "status": "pending",
        "hyperparameters": {"n_epochs": -1},
        "organization_id": None,
        "result_files": None,
        "seed": 1,
        "training_file": "file-1",
        "trainingType": "Standard",
    }
    path = "/openai/v1/fine_tuning/jobs/ftjob-1"
    assert check_response("GET", path, "", 200, job) == []
    assert "'colour'" in check_response("GET", path, "", 200, {**job, "colour": "red"})[0]
    given = {"model": "m", "training_file": "file-1", "trainingType": "Standard"}
    assert check_request("POST", "/openai/v1/fine_tuning/jobs", "", given) == []
