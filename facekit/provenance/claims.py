"""What a manifest claims, and whether to believe it: from the C2PA library's report to words.

Anyone can write a manifest, so nothing is taken for granted about the shape of what it holds.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

FACTS = "org.facekit.facts"
"""The label of facekit's own assertion: a JSON object of facts about the making."""

BINDING = "org.facekit.spread."
"""How the name of facekit's watermark begins in a soft binding; its version follows."""

MANIPULATED = ("generated", "composite")
"""facekit's kinds that tell of a generator."""

SYNTHETIC = (
    "trainedAlgorithmicMedia",
    "compositeWithTrainedAlgorithmicMedia",
    "compositeSynthetic",
)
"""IPTC's digital source types that tell of generative AI."""

_DIGEST = "nih:sha-256;"  # RFC 6920
# How the codes of failures begin that tell of the signer, not of the file. A timestamp lies beside
# the signature, which does not cover it: changing it changes nothing of what was signed.
_OF_THE_SIGNER = ("signingCredential.", "claimSignature.outsideValidity", "timeStamp.")
# What the library calls informational: such a timestamp shows nothing, but it should not be there.
_WRONG_STAMP = ("timeStamp.mismatch", "timeStamp.malformed")
_ELSEWHERE = dict.fromkeys(
    ("assertion.dataHash.mismatch", "assertion.bmffHash.mismatch", "assertion.boxesHash.mismatch"),
    ", or the manifest was taken from another file",
)
_DEPTH = 16  # generations of files opened and signed again; more are not looked at


@dataclass(frozen=True)
class Provenance:
    """What a file's manifest says, and whether to believe it.

    Attributes:
        status: "absent" (no manifest), "untrusted" (intact, by a signer that nobody here vouches
            for), "trusted" (intact, by a signer under ``trust.pem``) or "tampered".
        reason: why, in a sentence.
        claims: of the active manifest, JSON values; empty if absent or unreadable, not to be
            believed if tampered. kind: what facekit says it is, generated and composite also if
            it was only signed again since; source_type: IPTC's word for that; facts: about the
            making; inputs: what it was made from, each with name, sha256, relationship, manifest
            ("none", "intact" or "broken"), kind, source_type, signer and consent; actions: their
            names; consent: the SHA-256 of the consent records' ids; mark: the payload of
            facekit's watermark, in hex; bindings: all soft bindings, each with algorithm and
            value; generator and version: the software; signer; signed: when, if a trusted
            timestamp shows it; expires: when the signer's certificate does.
    """

    status: Literal["absent", "untrusted", "trusted", "tampered"]
    reason: str
    claims: dict[str, Any] = field(default_factory=dict)


def digest_name(sha256: str) -> str:
    """How an ingredient's ``instanceID`` names its file by hash (RFC 6920)."""
    return _DIGEST + sha256


def judge(report: Any, credential: Any) -> Provenance:
    """From the C2PA library's report to a status.

    Args:
        report: of ``c2pa.Reader.json``, parsed.
        credential: of ``c2pa.Reader.crjson``, parsed: it alone holds the certificate's dates.
    """
    manifests = _object(_object(report).get("manifests"))
    active = _text(_object(report).get("active_manifest"))
    manifest = _object(manifests.get(active)) if active else {}
    validation = _object(_object(report).get("validation_results"))
    results = _object(validation.get("activeManifest"))
    claims = _claims(manifest, manifests) | _signature(manifest, credential, results)
    if not manifest:
        return Provenance("tampered", "the file or its manifest was changed after signing", claims)
    if tampering := _tampering(validation):
        return Provenance("tampered", tampering, claims)
    failures = _failures(results)
    notes = _failures(results, "informational")
    failures |= {code: said for code, said in notes.items() if code in _WRONG_STAMP}
    state = _object(report).get("validation_state")
    if state == "Invalid" and failures.keys() <= {"signingCredential.untrusted"}:
        return Provenance("tampered", "the manifest does not validate", claims)
    signer = claims["signer"] or "an unnamed signer"
    doubts = _doubts(failures, claims)
    if state == "Trusted" and not doubts:
        reason = f"intact, signed by {signer}, whom an authority in trust.pem vouches for"
        return Provenance("trusted", reason, claims)
    why = "; ".join(doubts) or "no authority in trust.pem vouches for it"
    return Provenance("untrusted", f"intact, signed by {signer}, but {why}", claims)


def _failures(results: Mapping[str, Any], kind: str = "failure") -> dict[str, str]:
    """What failed, or was noted: code → explanation, the code itself if there is none."""
    return {
        str(row.get("code")): " ".join(str(row.get("explanation") or row.get("code")).split())
        for row in _objects(results.get(kind))
    }


def _tampering(validation: Mapping[str, Any]) -> str | None:
    """What was changed after signing; None if nothing was."""
    own = _failures(_object(validation.get("activeManifest")))
    for code, said in own.items():
        if not code.startswith(_OF_THE_SIGNER):
            return f"{_changed(code)} was changed after signing{_ELSEWHERE.get(code, '')} ({said})"
    # Of the manifests that this one holds only what has changed since it was signed is listed.
    for delta in _objects(validation.get("ingredientDeltas")):
        for code, said in _failures(_object(delta.get("validationDeltas"))).items():
            if not code.startswith(_OF_THE_SIGNER):
                return f"the manifest of an input, held in this one, was changed since ({said})"
    return None


def _changed(code: str) -> str:
    if code in _ELSEWHERE:
        return "the file"
    if code.startswith("assertion."):
        return "what the manifest says"
    return "the manifest" if code.startswith("claim") else "the file or its manifest"


def _doubts(failures: Mapping[str, str], claims: Mapping[str, Any]) -> list[str]:
    """Why an intact manifest's signer is not to be trusted, the gravest first."""
    found = []
    if "signingCredential.ocsp.revoked" in failures:
        found.append("its certificate was revoked")
    if "signingCredential.invalid" in failures:
        said = failures["signingCredential.invalid"]
        found.append(f"its certificate is not one that C2PA allows ({said})")
    expires = _time(claims["expires"])
    if "signingCredential.expired" in failures or (
        expires and expires < datetime.now(UTC) and not claims["signed"]
    ):
        when = f" on {expires:%Y-%m-%d}" if expires else ""
        found.append(
            f"its certificate expired{when}, and no trusted timestamp shows that it signed before"
        )
    if "claimSignature.outsideValidity" in failures:
        found.append("it signed outside the time for which its certificate was valid")
    if "signingCredential.untrusted" in failures:
        found.append("no authority in trust.pem vouches for it")
    if wrong := [failures[code] for code in _WRONG_STAMP if code in failures]:
        found.append(
            f"its timestamp is not one of this signature, or was changed since ({wrong[0]})"
        )
    known = ("signingCredential.", "claimSignature.outsideValidity", *_WRONG_STAMP)
    found += [text for code, text in failures.items() if not code.startswith(known)]
    return found


def _claims(
    manifest: Mapping[str, Any], manifests: Mapping[str, Any], depth: int = 0
) -> dict[str, Any]:
    """What one manifest says, apart from its signature."""
    found = _assertions(manifest)
    own = _object(_first(found, FACTS))
    actions = [
        action
        for label in ("c2pa.actions.v2", "c2pa.actions")
        for one in _all(found, label)
        for action in _objects(_object(one).get("actions"))
    ]
    bindings = [
        {"algorithm": str(_object(one).get("alg")), "value": str(block.get("value"))}
        for one in _all(found, "c2pa.soft-binding")
        for block in _objects(_object(one).get("blocks"))
    ]
    ours = [b["value"] for b in bindings if b["algorithm"].startswith(BINDING)]
    generator = next(iter(_objects(manifest.get("claim_generator_info"))), {})
    kind = own.get("kind")
    consent = [value for value in _list(own.get("consent")) if isinstance(value, str)]
    sources = [str(a["digitalSourceType"]).rsplit("/", 1)[-1] for a in actions if _source(a)]
    ingredients = _objects(manifest.get("ingredients"))
    if depth:  # of an input only its past matters; a forger could nest the rest without end
        ingredients = [one for one in ingredients if one.get("relationship") == "parentOf"][:1]
    inputs = [_input(ingredient, manifests, depth) for ingredient in ingredients]
    for one in inputs:
        # A file that was opened and signed again is still what it was. Only what speaks against
        # it is taken over: the old signer is not the one who vouches now.
        if one["relationship"] == "parentOf" and one["manifest"] == "intact":
            if kind is None and one["kind"] in MANIPULATED:
                kind = one["kind"]
            if one["source_type"] in SYNTHETIC:
                sources.append(one["source_type"])
            consent += [value for value in one["consent"] if value not in consent]
    telling = [source for source in sources if source in SYNTHETIC]
    return {
        "kind": kind if isinstance(kind, str) else None,
        "source_type": next(iter(telling or sources), None),
        "facts": _object(own.get("facts")),
        "inputs": inputs,
        "actions": [str(action.get("action")) for action in actions],
        "consent": consent,
        "mark": ours[0] if ours else None,
        "bindings": bindings,
        "generator": _text(generator.get("name")),
        "version": _text(generator.get("version")),
        "signer": _signer(manifest),
    }


def _input(
    ingredient: Mapping[str, Any], manifests: Mapping[str, Any], depth: int
) -> dict[str, Any]:
    name = _text(ingredient.get("title")) or "an unnamed file"
    instance = _text(ingredient.get("instance_id")) or ""
    label = _text(ingredient.get("active_manifest"))
    manifest = _object(manifests.get(label)) if label and depth < _DEPTH else {}
    intact = bool(manifest) and not _tampering(_object(ingredient.get("validation_results")))
    claims = _claims(manifest, manifests, depth + 1) if intact else {}
    return {
        "name": name,
        "sha256": instance.removeprefix(_DIGEST) if instance.startswith(_DIGEST) else None,
        "relationship": _text(ingredient.get("relationship")),
        "manifest": "intact" if intact else "broken" if manifest else "none",
        "kind": claims.get("kind"),
        "source_type": claims.get("source_type"),
        "signer": claims.get("signer"),
        "consent": claims.get("consent", []),
    }


def _signature(
    manifest: Mapping[str, Any], credential: Any, results: Mapping[str, Any]
) -> dict[str, Any]:
    """When the active manifest was signed, as far as that is certain, and until when it may be."""
    active = next(iter(_objects(_object(credential).get("manifests"))), {})
    certificate = _object(_object(active.get("signature")).get("certificateInfo"))
    expires = _time(_object(certificate.get("validity")).get("notAfter"))
    codes = {str(row.get("code")) for row in _objects(results.get("success"))}
    stamped = _time(_object(manifest.get("signature_info")).get("time"))
    certain = stamped if {"timeStamp.validated", "timeStamp.trusted"} <= codes else None
    return {
        "signed": certain.isoformat() if certain else None,
        "expires": expires.isoformat() if expires else None,
    }


def _signer(manifest: Mapping[str, Any]) -> str | None:
    info = _object(manifest.get("signature_info"))
    return _text(info.get("issuer")) or _text(info.get("common_name"))


def _assertions(manifest: Mapping[str, Any]) -> list[tuple[str, Any]]:
    rows = _objects(manifest.get("assertions"))
    return [(str(row.get("label")), row.get("data")) for row in rows]


def _all(assertions: Iterable[tuple[str, Any]], label: str) -> list[Any]:
    """The assertions of a label; the second and further ones end in ``__1``, ``__2``."""
    return [data for name, data in assertions if name.split("__")[0] == label]


def _first(assertions: Iterable[tuple[str, Any]], label: str) -> Any:
    return next(iter(_all(assertions, label)), None)


def _source(action: Mapping[str, Any]) -> bool:
    return isinstance(action.get("digitalSourceType"), str)


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in _list(value) if isinstance(item, dict)]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _time(value: Any) -> datetime | None:
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
