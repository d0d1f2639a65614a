"""Advise on errors of AWS or its client, by error code or class name."""

_WHO = "`aws sts get-caller-identity` says who you are"
_KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"
_NEW = "get new credentials (`aws sso login`), and set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
_NOT_KNOWN = (
    f"AWS_ACCESS_KEY_ID is not known there; is it the right account's, or AWS_ENDPOINT_URL missing? {_WHO}"
)
_ALLOW = (
    f"allow it in the role's policy and in the queue's (docs/howto/sqs-on-aws.md lists the actions); {_WHO}"
)
_MISSING = (
    "is SQS_QUEUE_URL right? `aws sqs list-queues --region REGION` lists them (with --endpoint-url where it "
    "is not AWS)"
)
_SIGNED = "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID, or the clock is wrong: `date -u`"
_WHERE = "is AWS_ENDPOINT_URL right (unset for AWS), and does the network let us out?"

_ADVICE = {
    "NoCredentialsError": _KEYS,
    "PartialCredentialsError": _KEYS,
    "CredentialRetrievalError": f"{_KEYS}; {_WHO}",
    "NoRegionError": "set AWS_REGION, such as AWS_REGION=eu-central-1",
    "ProfileNotFound": "unset AWS_PROFILE, or name one of `aws configure list-profiles`",
    "TokenRetrievalError": "sign in again: `aws sso login`",
    "UnauthorizedSSOTokenError": "sign in again: `aws sso login`",
    "SSOTokenLoadError": "sign in: `aws sso login`",
    "ExpiredToken": f"{_NEW}AWS_SESSION_TOKEN",
    "ExpiredTokenException": f"{_NEW}AWS_SESSION_TOKEN",
    "RequestExpired": _SIGNED,
    "RequestTimeTooSkewed": _SIGNED,
    "InvalidClientTokenId": _NOT_KNOWN,
    "InvalidAccessKeyId": _NOT_KNOWN,
    "UnrecognizedClientException": _NOT_KNOWN,
    "AuthFailure": _NOT_KNOWN,
    "InvalidSecurity": _NOT_KNOWN,
    "MissingAuthenticationToken": _KEYS,
    "SignatureDoesNotMatch": _SIGNED,
    "InvalidSignatureException": _SIGNED,
    "IncompleteSignature": _SIGNED,
    "AccessDenied": _ALLOW,
    "AccessDeniedException": _ALLOW,
    "OptInRequired": "the account is not signed up for the region; is AWS_REGION right?",
    "NonExistentQueue": _MISSING,
    "QueueDoesNotExist": _MISSING,
    "InvalidAddress": _MISSING,
    "EndpointConnectionError": _WHERE,
    "ConnectTimeoutError": _WHERE,
    "InvalidEndpoint": _WHERE,
}


def advice(code: str, *, otherwise: str = "") -> str:
    """Return the advice for a code, which may have a prefix of its service or a namespace."""
    return _ADVICE.get(code.rpartition("#")[2].rsplit(".", 1)[-1], otherwise)


def with_advice(words: str, code: str, *, otherwise: str = "") -> str:
    """Return the words, followed by advice if there is one."""
    told = advice(code, otherwise=otherwise)
    return f"{words}; {told}" if told else words
