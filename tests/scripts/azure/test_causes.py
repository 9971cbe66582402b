"""Texts as the services, libraries and our programs write them; long ones are cut."""

import pytest

from scripts.azure.causes import CAUSES, explain

EXITED = (
    "Execution failed. User process 'python' exited with status code {}. Please check log file "
)
"""As Azure ML ends a job whose process failed."""

TEXTS = {
    # what a log says
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total": (
        "training.packs_per_step"
    ),
    "RuntimeError: The NVIDIA driver on your system is too old (found version 12020). Please": (
        "older than the image's CUDA"
    ),
    "RuntimeError: CUDA error: no kernel image is available for execution on the device": (
        "HOMEPORT_TORCH_INDEX"
    ),
    "RuntimeError: Found no NVIDIA driver on your system. Please check that you have an": (
        "CUDA image needs a GPU instance type"
    ),
    "DataLoader worker (pid 71) is killed by signal: Bus error. It is possible that dataloader's "
    "workers are out of shared memory. Please try to raise your shared memory limit.": "shm_size",
    "OSError: [Errno 28] No space left on device: '/mnt/azureml/cr/j/model'": "disk is full",
    "huggingface_hub.errors.GatedRepoError: 401 Client Error. Cannot access gated repo for url": (
        "cloud.hub_token_secret"
    ),
    # how our program ended
    EXITED.format(1): "exit code 1",
    EXITED.format(2): "make local-check",
    EXITED.format(3): "memory, disk or network",
    EXITED.format(4): "failed its own check",
    EXITED.format(5): "make cloud-train goes on from there",
    EXITED.format(137): "lack of memory (137)",
    EXITED.format(143): "told to stop",
    "Last State: Terminated, Reason: OOMKilled, Exit Code: 137": "lack of memory (137)",
    # the inference server
    "gunicorn.errors.HaltServer: <HaltServer 'Worker failed to boot.' 3>": "init() failed",
    "Container exited with code 100": "lacks the inference server",
    "bash: line 1: azmlinfsrv: command not found": "lacks the inference server",
    "Process 'debugpy' exited with code 94": "AZUREML_DEBUG_PORT",
    "Exit code: 95": "install its requirements",
    # images
    'Failed to pull image "homes.azurecr.io/homeport@sha256:ab": rpc error: code = NotFound desc '
    "= failed to pull and unpack image: homes.azurecr.io/homeport@sha256:ab: not found: manifest "
    "unknown": "make cloud-push, then the same",
    "Failed to pull Docker image homes.azurecr.io/homeport@sha256:ab. This error may occur because "
    "the compute could not authenticate with the Docker registry to pull the image.": "AcrPull",
    "Error: ImagePullBackOff. Back-off pulling image homes.azurecr.io/homeport": "could not pull",
    "denied: client with IP '203.0.113.7' is not allowed access. Refer "
    "https://aka.ms/acr/firewall to grant access.": "--ip-address 203.0.113.7",
    "(ImageBuildFailure) Image build failed. For more details check log": "must name it by digest",
    # quota and capacity
    "(OutOfQuota) Not enough quota available for Standard_NC40ads_H100_v5 in SubscriptionId s. "
    "Current usage/limit: 0/24. Additional needed: 40. Please see troubleshooting guide": (
        "(0 in use, 40 more needed)"
    ),
    "Operation could not be completed as it results in exceeding approved Total Regional Cores "
    "quota. Additional details - Deployment Model: Resource Manager, Location: eastus, Current "
    "Limit: 10, Current Usage: 8, Additional Required: 40, (Minimum) New Limit Required: 48.": (
        "40 more needed"
    ),
    "The specified subscription has a total vCPU quota of 100 and cannot accommodate for at least "
    "1 requested managed compute node which maps to 112 vCPUs.": "100 cores does not hold one node",
    "ClusterCoreQuotaReached": "az ml compute list-usage",
    "(OutOfCapacity) The specified VM Size failed to provision due to a lack of Azure Machine "
    "Learning capacity. Retry later or try deploying to a different region.": "another region",
    "(BadRequest) The requested VM size Standard_NC40ads_H100_v5 is not available in the current "
    "region. The sizes available are:": "az ml compute list-sizes",
    "The job was preempted because its low priority node was reclaimed.": "goes on by itself",
    # storage and secrets
    "<Code>AuthenticationFailed</Code><Message>Server failed to authenticate the request. "
    "</Message><AuthenticationErrorDetail>Signature not valid in the specified time frame: Start "
    "[Fri, 20 Nov 2026] - Expiry [Fri, 20 Nov 2026] - Current": "(SAS) has ended",
    "KeyBasedAuthenticationNotPermitted: Key based authentication is not permitted on this storage "
    "account.": "--system-datastores-auth-mode identity",
    "AuthorizationPermissionMismatch: This request is not authorized to perform this operation "
    "using this permission.": "Storage Blob Data Contributor",
    "AuthorizationFailure: This request is not authorized to perform this operation.": "firewall",
    "(Forbidden) Caller is not authorized to perform action on resource. Code: ForbiddenByRbac": (
        "Key Vault Secrets User"
    ),
    "(SecretNotFound) A secret with (name/id) hub-token was not found in this key vault.": (
        "az keyvault secret set"
    ),
    # the endpoint
    "HTTP 424\nms-azureml-model-error-statuscode: 500\nms-azureml-model-error-reason: x": (
        "answered 500"
    ),
    "HTTP 424 Failed Dependency": "ms-azureml-model-error-statuscode",
    "HTTP 408: upstream request timeout": "request_timeout_ms",
    "HTTP 429 Too Many Requests": "max_concurrent_requests_per_instance",
    "ResourceNotReady: User container has crashed or terminated: Liveness probe failed: HTTP probe "
    "failed with statuscode: 502. Please see troubleshooting guide": "did not answer GET / in time",
    'Readiness probe failed: Get "http://10.0.0.4:5001/": context deadline exceeded '
    "(Client.Timeout exceeded while awaiting headers)": "did not answer GET / in time",
    "ResourceNotReady: User container has crashed or terminated. Please see": "make local-serve",
    # who asks, for what
    "(AuthorizationFailed) The client 'me@example.com' with object id 'o' does not have "
    "authorization to perform action 'Microsoft.MachineLearningServices/workspaces/jobs/write' "
    "over scope '/subscriptions/s' or the scope is invalid.": (
        "may not do Microsoft.MachineLearningServices/workspaces/jobs/write"
    ),
    "(AuthorizationFailed) The client has no access.": "lacks a role",
    "(ReadOnlyDisabledSubscription) The subscription 's' is disabled.": "billing page",
    "(InvalidSubscriptionId) The provided subscription identifier is malformed": "does not see",
    "(MissingSubscriptionRegistration) The subscription is not registered to use namespace "
    "'Microsoft.MachineLearningServices'.": "az provider register",
    "(RequestDisallowedByPolicy) Resource 'x' was disallowed by policy.": "policy",
    "AADSTS700082: The refresh token has expired due to inactivity.": "az login",
    "(ModelNotSupportedByMaaS) The model is not supported in this region.": "command_job",
    "(ResourceGroupNotFound) Resource group 'g' could not be found.": "AZURE_RESOURCE_GROUP",
    "(ResourceNotFound) The Resource 'Microsoft.MachineLearningServices/workspaces/w' under "
    "resource group 'g' was not found.": "AZURE_WORKSPACE",
    "(ResourceNotFound) Online endpoint e was not found": "make cloud-status",
    "Job exceeded the maximum run duration and was cancelled": "cloud.max_hours",
}


@pytest.mark.parametrize("text", TEXTS, ids=[text[:40] for text in TEXTS])
def test_a_known_text_becomes_its_sentence(text: str) -> None:
    assert TEXTS[text] in (explain(text) or "")


@pytest.mark.parametrize(
    "text", ["", "step 10 loss 1.234", "Execution failed for a reason that nobody knows."]
)
def test_nothing_is_guessed(text: str) -> None:
    assert explain(text) is None


def test_a_log_that_says_why_comes_before_what_followed_from_it() -> None:
    log = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    assert "GPU's memory" in (explain(EXITED.format(1) + "\n" + log) or "")
    assert "GPU's memory" in (explain(f"User container has crashed or terminated\n{log}") or "")


def test_lines_may_be_broken_anywhere() -> None:
    assert explain("CUDA out\n   of memory") == explain("CUDA out of memory")


def test_every_cause_has_a_text_here() -> None:
    found = {explain(text) or "" for text in TEXTS}
    for cause in CAUSES:
        begin = cause.sentence.partition("{")[0]
        assert any(one.startswith(begin) for one in found), cause.pattern


def test_no_sentence_keeps_a_hole() -> None:
    assert all("{" not in (explain(text) or "") for text in TEXTS)
