"""What the cloud verbs share: the client, specs, assets, jobs, endpoints, images, prices."""
