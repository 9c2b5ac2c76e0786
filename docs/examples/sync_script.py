import os
import time

from emitter import SyncAgentEmitter

with SyncAgentEmitter("dev", redis_url=os.environ["RUNCAST_REDIS_URL"]) as emitter:
    print(emitter.execution_id, flush=True)
    emitter.execution_started(task="Nightly backup")
    with emitter.tool("copy", {"from": "/data"}) as call:
        time.sleep(0.05)
        call.result = {"files": 17}
    emitter.execution_complete(result={"files": 17})
