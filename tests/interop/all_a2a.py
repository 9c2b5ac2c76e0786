"""A client of a2a-sdk, 0.3 or 1.x as the interpreter has it, for `test_all_clients.py`.

`all_a2a.py '{"urls", "token", "version", "jobs"}'`: each job follows a task (`execution`, which somebody else started)
or starts one (`agent`, `text`, `params`) and follows it to its end. When the connection is lost it goes on after its
cursor at the next of the URLs. Where the task asks, it answers (`answer`; after a line, if it `waits`) or follows on.
It prints what it is at, and in the end what it has of each job.
"""

import asyncio
import json
import sys
import uuid

import httpx

GIVEN = json.loads(sys.argv[1])
IS_NEW = GIVEN["version"] == "1.0"
TERMINAL = ("completed", "failed", "canceled", "rejected")

if IS_NEW:
    from a2a.client.card_resolver import A2ACardResolver
    from a2a.client.client import ClientCallContext, ClientConfig
    from a2a.client.client_factory import ClientFactory
    from a2a.types import a2a_pb2 as a2a
    from google.protobuf.json_format import MessageToDict, ParseDict
else:
    from a2a import types as old
    from a2a.client import A2ACardResolver, A2AClient


def say(**facts):
    print(json.dumps(facts), flush=True)


# --- the two versions ------------------------------------------------------------------------------------------------


class New:
    """Gives (kind, object of 1.0)."""

    def __init__(self, http, card):
        self._client = ClientFactory(ClientConfig(httpx_client=http)).create(card)

    @staticmethod
    def _told(event):
        ((kind, value),) = MessageToDict(event).items()
        return {"task": "task", "statusUpdate": "status-update", "artifactUpdate": "artifact-update"}[kind], value

    async def send(self, parts, metadata, **about):
        said = {"messageId": str(uuid.uuid4()), "role": "ROLE_USER", "parts": parts, **about}
        request = ParseDict({"message": said, "metadata": metadata}, a2a.SendMessageRequest())
        async for event in self._client.send_message(request):
            yield self._told(event)

    async def subscribe(self, task_id, cursor):
        context = ClientCallContext(service_parameters={"Last-Event-ID": cursor} if cursor else {})
        async for event in self._client.subscribe(a2a.SubscribeToTaskRequest(id=task_id), context=context):
            yield self._told(event)


class Old:
    """Gives (kind, object of 0.3)."""

    def __init__(self, http, card):
        self._client = A2AClient(http, agent_card=card)

    @staticmethod
    def _told(response):
        assert not hasattr(response.root, "error"), response.root.error
        value = response.root.result.model_dump(mode="json", by_alias=True, exclude_none=True)
        return value.pop("kind"), value

    async def send(self, parts, metadata, **about):
        kinds = [{"kind": next(iter(part)), **part} for part in parts]
        said = {"messageId": str(uuid.uuid4()), "role": "user", "parts": kinds, **about}
        params = old.MessageSendParams(message=said, metadata=metadata or None)
        request = old.SendStreamingMessageRequest(id=str(uuid.uuid4()), params=params)
        async for response in self._client.send_message_streaming(request):
            yield self._told(response)

    async def subscribe(self, task_id, cursor):
        params = old.TaskIdParams(id=task_id, metadata={"cursor": cursor} if cursor else None)
        request = old.TaskResubscriptionRequest(id=str(uuid.uuid4()), params=params)
        async for response in self._client.resubscribe(request):
            yield self._told(response)


async def connect(http, url):
    card = await A2ACardResolver(http, url).get_agent_card()
    return New(http, card) if IS_NEW else Old(http, card)


# --- what a client has -----------------------------------------------------------------------------------------------


def content(part):
    return part["text"] if "text" in part else part.get("data", part.get("url"))


class Kept:
    """What a client has that keeps artifacts as the protocol says, and events of ours as they come. When a retry takes
    over, it leaves out the events that came after `fromSeq`; artifacts are taken back one by one."""

    def __init__(self):
        self.task = self.cursor = self.state = self.prompt = None
        self.artifacts, self.events, self.generations, self.prompts, self.metadata = {}, [], [], [], {}

    def take(self, kind, value):
        metadata = value["metadata"]
        self.cursor = metadata["cursor"]
        if kind == "task":
            self.task = {"taskId": value["id"], "contextId": value["contextId"]}
            self.artifacts = {each["artifactId"]: self._parts(each) for each in value.get("artifacts", [])}
        else:
            self.generations.append([int(metadata["generation"]), metadata["event"]])
        if kind == "artifact-update":
            self._artifact(value)
        else:
            self._status(metadata, value["status"])
            self.metadata |= metadata
        if metadata.get("event") == "execution:superseded" and kind == "status-update":
            self.events = [each for each in self.events if each[0] <= int(metadata["fromSeq"])]

    def _parts(self, artifact):
        return [content(part) for part in artifact["parts"]]

    def _artifact(self, update):
        artifact = update["artifact"]
        id_ = artifact["artifactId"]
        if artifact.get("metadata", {}).get("void"):
            self.artifacts.pop(id_, None)
            return
        added = update.get("append", False)
        assert not added or id_ in self.artifacts, f"added to nothing: {id_}"
        self.artifacts[id_] = (self.artifacts[id_] if added else []) + self._parts(artifact)

    def _status(self, metadata, status):
        """The event is in the message; where that is a question, which stands, in the metadata."""
        self.state = status["state"].removeprefix("TASK_STATE_").lower().replace("_", "-")
        parts = status.get("message", {}).get("parts", [])
        told = [{"type": metadata["event"], "data": metadata["data"]}] if "data" in metadata else map(content, parts)
        seq = int(metadata["generation"])
        if all(seq != known for known, _, _ in self.events):
            self.events += [(seq, each["type"], each["data"]) for each in told if isinstance(each, dict)]
        if self.state == "input-required":
            self.prompt = next((part["text"] for part in parts if "text" in part), None)
            if self.prompt not in self.prompts:
                self.prompts.append(self.prompt)

    def of(self, type_):
        return [data for _, each, data in self.events if each == type_]

    def calls(self):
        found = {each["callId"]: {"name": each["toolName"], "params": each["params"]} for each in self.of("tool:start")}
        for each in self.of("tool:complete"):
            found[each["callId"]]["result"] = each["result"]
        for each in self.of("tool:error"):
            found[each["callId"]]["error"] = each["error"]
        return list(found.values())

    def outcome(self):
        made = {
            id_: parts[0] if len(parts) == 1 else "".join(parts)
            for id_, parts in self.artifacts.items()
            if id_ != "runcast:synthesis"
        }
        text = "".join(made.pop(id_) for id_ in list(made) if id_.startswith("message:"))
        partials = [made.pop(id_) for id_ in list(made) if id_.startswith("partial:")]
        return {
            "status": self.state,
            "text": text,
            "tools": self.calls(),
            "result": made.pop("runcast:result", None),
            "partials": partials,
            "artifacts": made,
            "phases": [each["phaseName"] for each in self.of("phase:complete")],
            "thoughts": [each["thought"] for each in self.of("thinking")],
            "specialists": sorted(each["specialist"] for each in self.of("specialist:complete")),
            "customs": [name for _, name, _ in self.events if name.startswith("custom:")],
            "usage": self.metadata.get("usage"),
            "attempt": self.metadata.get("attempt"),
            "prompts": self.prompts,
            "generations": self.generations,
        }


# --- what it does ----------------------------------------------------------------------------------------------------


async def line():
    return await asyncio.to_thread(sys.stdin.readline)


def is_lost(error):
    """Whether it was the connection that failed, as the SDKs' own errors say in what caused them."""
    while error is not None and not isinstance(error, httpx.TransportError):
        error = error.__cause__ or error.__context__
    return error is not None


async def read(stream, kept):
    """Whether the stream ended by itself."""
    try:
        async for kind, value in stream:
            kept.take(kind, value)
    except Exception as error:
        if not is_lost(error):
            raise
        say(at="lost", how=f"{type(error).__name__}: {error}", cursor=kept.cursor)
        return False
    return True


async def follow(http, job):
    kept, leg, stream = Kept(), 0, None
    while kept.state not in TERMINAL:
        client = await connect(http, GIVEN["urls"][min(leg, len(GIVEN["urls"]) - 1)])
        if stream is not None:
            stream = client.send([{"text": job["answer"]}], {"cursor": kept.cursor}, **kept.task)
        elif kept.task is None and "execution" not in job:
            parts = [{"text": job["text"]}, *([{"data": job["params"]}] if job.get("params") else [])]
            stream = client.send(parts, {"agent": job["agent"]})
        else:
            stream = client.subscribe(job.get("execution") or kept.task["taskId"], kept.cursor)
        ended, stream = await read(stream, kept), None
        leg += 1
        if ended and kept.state == "input-required":
            say(at="asked", prompt=kept.prompt)
            if "answer" in job:
                if job.get("waits"):
                    await line()
                stream = True
        elif ended:
            assert kept.state in TERMINAL, kept.state
    return kept.outcome()


async def main():
    headers = {"Authorization": f"Bearer {GIVEN['token']}", **({"A2A-Version": "1.0"} if IS_NEW else {})}
    async with httpx.AsyncClient(headers=headers) as http:
        say(outcomes=[await follow(http, job) for job in GIVEN["jobs"]])


asyncio.run(main())
