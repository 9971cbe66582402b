"""Known causes of failures: what Azure or a log writes, and the sentence that says what to do next.

    sentence = explain(error_text + container_logs)      # None: nothing here fits

Matched in order, the most telling first: a log that says why comes before a probe that says that
it failed. The patterns are the services' own words; the sentences name the next command. It asks
nothing of Azure.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """What is written, and what it means; `{1}` in the sentence is the pattern's group 1."""

    pattern: str
    sentence: str


CAUSES = (
    # what our own programs and the libraries below them write into a log
    Cause(
        r"CUDA out of memory|CUDA_ERROR_OUT_OF_MEMORY|CUBLAS_STATUS_ALLOC_FAILED",
        "the GPU's memory is too small: halve training.packs_per_step or training.max_length, "
        "set tuning: qlora, or choose a larger cloud.instance_type (make cloud-plan shows the "
        "estimate).",
    ),
    Cause(
        r"NVIDIA driver on your system is too old \(found version (\d+)\)"
        r"|CUDA driver version is insufficient for CUDA runtime version",
        "the node's NVIDIA driver is older than the image's CUDA: build the image on the "
        "default CUDA 12.6 (unset HOMEPORT_TORCH_INDEX and HOMEPORT_VLLM), then make "
        "cloud-push.",
    ),
    Cause(
        r"no kernel image is available for execution on the device",
        "the image's torch has no kernels for this GPU: set HOMEPORT_TORCH_INDEX to a build "
        "that has (see images/Dockerfile), then make cloud-push.",
    ),
    Cause(
        r"Found no NVIDIA driver on your system|Torch not compiled with CUDA enabled"
        r"|nvidia-container-cli: initialization error",
        "the image and the machine do not fit: a CUDA image needs a GPU instance type and the "
        "other way round; make cloud-plan says which image it takes, and why.",
    ),
    Cause(
        r"DataLoader worker .* killed by signal: Bus error|out of shared memory|No space left on "
        r"device.*/dev/shm",
        "the container's shared memory is too small: raise shm_size in scripts/azure/specs.py.",
    ),
    Cause(
        r"No space left on device|the disk is full",
        "the node's disk is full: choose an instance type with a larger disk (make "
        "cloud-plan), or set training.keep_checkpoints to 1.",
    ),
    Cause(
        r"GatedRepoError|Access to model \S+ is restricted|401 Client Error.*huggingface\.co"
        r"|Cannot access gated repo",
        "the hub wants a token for this model: put it into the workspace's key vault and name "
        "it in cloud.hub_token_secret, or stage the model once with make cloud-stage.",
    ),
    Cause(
        r"OOMKilled|exited with (?:status )?code 137|exit code:? 137|\bExitCode=137\b",
        "the container was killed for lack of memory (137): choose an instance type with more "
        "memory, or for training a smaller training.packs_per_step.",
    ),
    Cause(
        r"exited with status code 2\b",
        "train refused its input (exit code 2): the last line of make cloud-logs says which "
        "recipe key or row; make local-check finds the same here, for nothing.",
    ),
    Cause(
        r"exited with status code 3\b",
        "train cannot run on this machine as it is (exit code 3: memory, disk or network): the "
        "last line of make cloud-logs says what is lacking.",
    ),
    Cause(
        r"exited with status code 4\b",
        "training ended, but its result failed its own check (exit code 4) and was not "
        "published: the last line of make cloud-logs says which check.",
    ),
    Cause(
        r"exited with status code 5\b",
        "training was stopped by a signal after writing a checkpoint (exit code 5): make "
        "cloud-train goes on from there.",
    ),
    Cause(
        r"exited with status code 143\b|exit code:? 143",
        "the job was told to stop (143): make cloud-train goes on from the last checkpoint.",
    ),
    Cause(
        r"exited with status code 1\b",
        "train ended with a bug of its own (exit code 1): its traceback is at the end of make "
        "cloud-logs.",
    ),
    # the inference server: its own exit codes, and those of Azure's stock images
    Cause(
        r"exit(?:ed with)? (?:status )?code:? 94\b",
        "the server's debugger could not start (94): unset AZUREML_DEBUG_PORT in the deployment.",
    ),
    Cause(
        r"exit(?:ed with)? (?:status )?code:? (?:95|98|99)\b",
        "the stock image could not install its requirements (95, 98, 99): use our image, which "
        "has all that it needs (make cloud-deploy).",
    ),
    Cause(
        r"exit(?:ed with)? (?:status )?code:? (?:96|97|100)\b|azmlinfsrv: (?:command )?not found",
        "the image lacks the inference server (96, 97, 100): use our image (make cloud-deploy).",
    ),
    Cause(
        r"Worker failed to boot|User's init\(\) failed|Failed to load entry script"
        r"|Exception in init"
        r"|exit(?:ed with)? (?:status )?code:? 3\b.*(?:gunicorn|azmlinfsrv)",
        "score.py could not be imported or its init() failed (exit code 3): the traceback "
        "stands in the container's log above; make local-serve shows the same here.",
    ),
    # before the container runs
    Cause(
        r"manifest unknown|manifest for \S+ not found|MANIFEST_UNKNOWN",
        "the registry does not hold the image of this digest: make cloud-push, then the same "
        "command.",
    ),
    Cause(
        r"(?:unauthorized|denied|no basic auth|could not authenticate).{0,200}"
        r"(?:azurecr|registry|pull)"
        r"|(?:azurecr|registry|pull).{0,300}(?:unauthorized|denied|could not authenticate)",
        "the identity may not pull the image: az role assignment create --role AcrPull "
        "--assignee OBJECT-ID --scope REGISTRY-ID (make cloud-train checks it and prints the "
        "whole command).",
    ),
    Cause(
        r"ImagePullBackOff|ErrImagePull|ImagePullFailure|Failed to pull (?:Docker )?image"
        r"|DockerImagePullFailed"
        r"|Unable to (?:pull|download) docker image|error pulling image",
        "the node could not pull the image: make cloud-push shows whether the registry holds "
        "it, make cloud-train whether the identity may pull it (AcrPull).",
    ),
    Cause(
        r"client with IP '?([\d.]+)'? is not allowed access",
        "the registry's firewall keeps {1} out: az acr network-rule add --name REGISTRY "
        "--ip-address {1}",
    ),
    Cause(
        r"ImageBuildFailure|image build failed",
        "Azure tried to build an image, which our specs never ask for: "
        "azure/environment-serve.yml must name it by digest.",
    ),
    # quota and capacity
    Cause(
        r"quota.{0,300}?Current (?:in use|usage)\D{0,12}(\d+).{0,40}?"
        r"Additional (?:needed|requested|required)\D{1,3}(\d+)",
        "the quota of cores is too small ({1} in use, {2} more needed): ask for more in the "
        "studio's Quota page, or choose another cloud.instance_type or region (make "
        "cloud-plan).",
    ),
    Cause(
        r"vCPU quota of (\d+).{0,200}?maps to (\d+) vCPUs",
        "the quota of {1} cores does not hold one node of {2}: ask for more in the studio's "
        "Quota page, or choose a smaller cloud.instance_type (make cloud-plan).",
    ),
    Cause(
        r"OutOfQuota|QuotaExceeded|ClusterCoreQuotaReached|[Nn]ot enough quota"
        r"|exceed\w* .{0,40}quota"
        r"|InsufficientQuota",
        "the quota does not suffice: az ml compute list-usage --location REGION shows it; ask "
        "for more in the studio's Quota page, or choose another cloud.instance_type.",
    ),
    Cause(
        r"OutOfCapacity|lack of Azure Machine Learning capacity|AllocationFailed"
        r"|ZonalAllocationFailed|OverconstrainedAllocationRequest|insufficient capacity",
        "the region has no such machine free now (quota is another matter): give the same command "
        "later, or choose another cloud.instance_type or a workspace in another region.",
    ),
    Cause(
        r"SkuNotAvailable|VM size .{0,60}(?:not available|not supported|isn't supported)"
        r"|Standard_\S+ is not (?:available|supported)|InvalidVmSize|VmSizeNotSupported",
        "the region does not offer this machine for this use: az ml compute list-sizes --location "
        "REGION shows what it offers; choose another cloud.instance_type.",
    ),
    Cause(
        r"preempted|evicted|was (?:reclaimed|deallocated) .{0,30}(?:spot|low.?priority)",
        "Azure took the spot machine away; the job goes on by itself on another one, from its last "
        "checkpoint; cloud.spot: false avoids it.",
    ),
    # storage and secrets
    Cause(
        r"Signature not valid in the specified time frame|Signature fields not well formed"
        r"|SAS.{0,40}expired|expired.{0,40}SAS",
        "the storage link (SAS) has ended: give the same command again, it asks for a new one; "
        "check this machine's clock if it happens at once.",
    ),
    Cause(
        r"KeyBasedAuthenticationNotPermitted|Key based authentication is not permitted",
        "the storage account takes no keys: set the workspace's datastores to identity (az ml "
        "workspace update --system-datastores-auth-mode identity) and give the role Storage "
        "Blob Data Contributor.",
    ),
    Cause(
        r"AuthorizationPermissionMismatch|not authorized to perform this operation using this "
        r"permission",
        "the identity lacks a role on the storage account: az role assignment create --role "
        "'Storage Blob Data Contributor' --assignee OBJECT-ID --scope STORAGE-ID (make "
        "cloud-train checks it and prints the whole command).",
    ),
    Cause(
        r"AuthorizationFailure|not authorized to perform this operation",
        "the storage account's firewall keeps this machine out: az storage account "
        "network-rule add --account-name STORAGE --ip-address YOUR-ADDRESS",
    ),
    Cause(
        r"ForbiddenByRbac|Caller is not authorized to perform action on resource|ForbiddenByPolicy"
        r"|does not have secrets get permission",
        "the identity may not read the key vault: az role assignment create --role 'Key Vault "
        "Secrets User' --assignee OBJECT-ID --scope VAULT-ID (make cloud-train checks it and "
        "prints the whole command).",
    ),
    Cause(
        r"SecretNotFound|secret with \(name/id\) (\S+) was not found",
        "the key vault has no secret of the name in cloud.hub_token_secret: az keyvault secret set "
        "--vault-name VAULT --name NAME --file FILE-WITH-THE-TOKEN",
    ),
    # the endpoint's answers
    Cause(
        r"ms-azureml-model-error-statuscode:?\s*(\d+)",
        "the model's server answered {1} (Azure says 424 for that): make cloud-logs ENDPOINT=… "
        "shows its traceback.",
    ),
    Cause(
        r"HTTP(?: status)? 424|424 Failed Dependency",
        "the model's server refused the request or failed (424): the header "
        "ms-azureml-model-error-statuscode has its status; make cloud-logs ENDPOINT=… has its "
        "reason.",
    ),
    Cause(
        r"upstream request timeout|\b408\b.{0,30}(?:Request Timeout|timeout)",
        "the answer took longer than the deployment's request_timeout_ms (408): ask for fewer "
        "max_new_tokens; Azure allows 180 s at most.",
    ),
    Cause(
        r"\b429\b.{0,60}(?:Too Many Requests|max concurrent)|Too many (?:pending )?requests",
        "more requests than the deployment takes at once (429): wait and ask again, or raise "
        "max_concurrent_requests_per_instance or cloud.serve_instances.",
    ),
    Cause(
        r"Startup probe failed|(?:Liveness|Readiness) probe failed.{0,80}"
        r"(?:statuscode: 50\d|timeout|deadline exceeded|connection refused|Client\.Timeout)",
        "the server did not answer GET / in time: it crashed, or the model was still loading; "
        "the container's last lines say which (make cloud-logs ENDPOINT=…).",
    ),
    Cause(
        r"User container has crashed or terminated|CrashLoopBackOff|Back-off restarting failed "
        r"container|ResourceNotReady",
        "the server ended while it started: its last lines in the log of inference-server say why; "
        "make local-serve shows the same here.",
    ),
    # who asks, and for what
    Cause(
        r"does not have authorization to perform action '([^']+)'(?:.{0,20}over scope '([^']+)')?",
        "your sign-in may not do {1}: ask the workspace's owner for the role AzureML Data "
        "Scientist, or one that has this action.",
    ),
    Cause(
        r"AuthorizationFailed",
        "your sign-in lacks a role here: ask the workspace's owner for AzureML Data Scientist.",
    ),
    Cause(
        r"MissingSubscriptionRegistration|not registered to use namespace '([^']+)'",
        "the subscription has not enabled this service: az provider register --namespace "
        "Microsoft.MachineLearningServices",
    ),
    Cause(
        r"RequestDisallowedByPolicy",
        "a policy of your organisation forbids this resource: its name stands in the error; "
        "ask whoever runs the subscription.",
    ),
    Cause(
        r"ReadOnlyDisabledSubscription|subscription .{0,60}is disabled",
        "the subscription is disabled, so nothing can be made in it: see its billing page.",
    ),
    Cause(
        r"AADSTS\d+|Please run 'az login'|DefaultAzureCredential failed to retrieve a token",
        "the sign-in has ended or does not fit the tenant: az login --tenant TENANT, then the same "
        "command.",
    ),
    Cause(
        r"ModelNotSupportedByMaaS|[Mm]odel .{0,80}not supported for (?:fine-?tuning|serverless)",
        "Azure does not fine-tune this model without machines of your own here: use cloud.route: "
        "command_job.",
    ),
    Cause(
        r"ResourceGroupNotFound|Resource group '([^']+)' could not be found",
        "the resource group is not in this subscription: check AZURE_SUBSCRIPTION_ID and "
        "AZURE_RESOURCE_GROUP.",
    ),
    Cause(
        r"(?:SubscriptionNotFound|InvalidSubscriptionId)",
        "your sign-in does not see this subscription: check AZURE_SUBSCRIPTION_ID, or az login "
        "--tenant TENANT.",
    ),
    Cause(
        r"Resource 'Microsoft\.MachineLearningServices/workspaces/([^'/]+)' under resource group|"
        r"WorkspaceNotFound",
        "the workspace is not there: check AZURE_WORKSPACE, AZURE_RESOURCE_GROUP and "
        "AZURE_SUBSCRIPTION_ID.",
    ),
    Cause(
        r"ResourceNotFound|EndpointNotFound|DeploymentNotFound",
        "what the command names is not in the workspace: make cloud-status lists what is there.",
    ),
    Cause(
        r"(?:JobTimedOut|exceeded .{0,30}(?:timeout|max(?:imum)? (?:run )?duration))",
        "the job reached cloud.max_hours and was ended: raise it and give make cloud-train "
        "again; it goes on from the last checkpoint.",
    ),
)


def explain(text: str) -> str | None:
    """The first known cause that `text` shows, as one sentence with the next command; else None."""
    flat = " ".join(text.split())
    for cause in CAUSES:
        if found := re.search(cause.pattern, flat, re.IGNORECASE):
            sentence = cause.sentence
            for number, said in enumerate(found.groups("?"), start=1):
                sentence = sentence.replace(f"{{{number}}}", said)
            return sentence
    return None
