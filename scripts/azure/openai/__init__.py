"""Azure OpenAI: its resources, files, fine-tuning jobs and deployments.

scripts/azure/routes/azure_openai.py puts these together to the verbs; each module here knows one
thing of the service.
"""
