"""What can go wrong. Every exception is a `CipherlmError`.

Those whose `code` is one of the protocol (`key/mismatch`) are the same wherever they are found: here,
or by a server. The others, `local/...`, never leave this machine. The message names both sides of a
mismatch, and the next step.
"""

from __future__ import annotations


class CipherlmError(Exception):
    """Anything that this package refuses or fails at."""

    #: Name of the error, fixed across versions.
    code: str = "local/error"
    #: Seconds after which a server wants to be asked again; none where that does not help.
    retry_after: int | None = None


class ObjectTruncated(CipherlmError):
    """The object ends too early."""

    code = "object/truncated"


class ObjectTrailing(CipherlmError):
    """Bytes follow the object."""

    code = "object/trailing"


class ObjectMagic(CipherlmError):
    """Not an object of this protocol."""

    code = "object/magic"


class ObjectType(CipherlmError):
    """Another type of object."""

    code = "object/type"


class ObjectVersion(CipherlmError):
    """Another version of the format."""

    code = "object/version"


class ObjectLength(CipherlmError):
    """A length other than the parameters imply."""

    code = "object/length"


class ObjectHash(CipherlmError):
    """The object is damaged."""

    code = "object/hash"


class ObjectResidue(CipherlmError):
    """A residue is not below its prime."""

    code = "object/residue"


class ObjectField(CipherlmError):
    """A field has an impossible value."""

    code = "object/field"


class ParamsMismatch(CipherlmError):
    """Other parameters."""

    code = "params/mismatch"


class KeyMismatch(CipherlmError):
    """Another key."""

    code = "key/mismatch"


class PlanMismatch(CipherlmError):
    """Another plan."""

    code = "plan/mismatch"


class KeyPurpose(CipherlmError):
    """A key that no plan asks for."""

    code = "key/purpose"


class KeyShape(CipherlmError):
    """A key of another shape."""

    code = "key/shape"


class KeyInsecure(CipherlmError):
    """A key that would not be secure."""

    code = "key/insecure"


class BlobHash(CipherlmError):
    """The content has another hash."""

    code = "blob/hash"


class BlobUnlisted(CipherlmError):
    """Not a file of the manifest."""

    code = "blob/unlisted"


class JobHash(CipherlmError):
    """The prompt has another hash."""

    code = "job/hash"


class KeyUnknown(CipherlmError):
    """No such keys."""

    code = "key/unknown"


class KeyIncomplete(CipherlmError):
    """Keys are missing."""

    code = "key/incomplete"


class KeyDamaged(CipherlmError):
    """A stored key is damaged."""

    code = "key/damaged"


class JobUnknown(CipherlmError):
    """No such job."""

    code = "job/unknown"


class JobUnfinished(CipherlmError):
    """The job is not done."""

    code = "job/unfinished"


class JobDead(CipherlmError):
    """The job ends its workers."""

    code = "job/dead"


class PlanUnknown(CipherlmError):
    """No such plan."""

    code = "plan/unknown"


class PlanSuperseded(CipherlmError):
    """The server has another plan now."""

    code = "plan/superseded"


class NotFound(CipherlmError):
    """Nothing at this address."""

    code = "not-found"


class Method(CipherlmError):
    """This address takes other methods."""

    code = "method"


class Query(CipherlmError):
    """Not a query or header that this address takes."""

    code = "query"


class Auth(CipherlmError):
    """No valid token."""

    code = "auth"


class Scope(CipherlmError):
    """The token does not allow this."""

    code = "scope"


class LengthRequired(CipherlmError):
    """No declared length."""

    code = "length/required"


class LengthMismatch(CipherlmError):
    """Not the length that is expected."""

    code = "length/mismatch"


class Slow(CipherlmError):
    """The request took too long to arrive."""

    code = "slow"


class JsonLimit(CipherlmError):
    """Too long or too deep."""

    code = "json/limit"


class JsonField(CipherlmError):
    """Not the JSON that is expected."""

    code = "json/field"


class QuotaJobs(CipherlmError):
    """Too many jobs."""

    code = "quota/jobs"


class QuotaKeys(CipherlmError):
    """Too many bytes of keys."""

    code = "quota/keys"


class Busy(CipherlmError):
    """The queue is full."""

    code = "busy"


class Stopping(CipherlmError):
    """The server is stopping."""

    code = "stopping"


class Disk(CipherlmError):
    """The server's disk is full."""

    code = "disk"


class Memory(CipherlmError):
    """The server's memory is short."""

    code = "memory"


class Internal(CipherlmError):
    """A fault of the server."""

    code = "internal"


class PromptRefused(CipherlmError):
    """The prompt is empty, or longer than the plan or the model takes."""

    code = "local/prompt"


class OutOfRange(CipherlmError):
    """On this prompt a value leaves the range that its polynomial was certified for."""

    code = "local/range"


class PositionRefused(CipherlmError):
    """The answer does not hold this position."""

    code = "local/position"


class NotAnAnswer(CipherlmError):
    """A decryption that cannot be what the plan computes."""

    code = "local/answer"


class PlanRefused(CipherlmError):
    """The model, the length and the profile do not go together."""

    code = "local/plan"


class ModelRefused(CipherlmError):
    """The model, its tokenizer or its ranges are not what they should be."""

    code = "local/model"


class SecretRefused(CipherlmError):
    """The secret key is missing, damaged, of other parameters, or open to others."""

    code = "local/secret"


class Malformed(CipherlmError):
    """A file or folder of ours is damaged, incomplete or another one."""

    code = "local/malformed"


class FileRefused(CipherlmError, OSError):
    """A file could not be read or written."""

    code = "local/file"


class Stopped(CipherlmError):
    """The work was stopped between two steps; the same call goes on."""

    code = "local/stopped"


class Cancelled(CipherlmError):
    """The job was cancelled."""

    code = "local/cancelled"


class LineDown(CipherlmError, ConnectionError):
    """The server does not answer."""

    code = "local/line"


class TlsRefused(CipherlmError, ConnectionError):
    """Certificates or the handshake."""

    code = "local/tls"


class AddressRefused(CipherlmError, ValueError):
    """No address of a server, or no token for it."""

    code = "local/address"


class StrangeAnswer(CipherlmError):
    """The answer is not one of this protocol."""

    code = "local/strange"
