import time

from emitter import Agents, SyncContext

agents = Agents()


@agents.agent("counter", description="Counts in a thread")
def counter(context: SyncContext) -> dict[str, int]:
    done = 0
    with context.emitter.phase("count", "Count"):
        for number in range(1, 6):
            if context.cancelled:
                break
            time.sleep(0.02)  # blocks its own thread, and nothing else
            done = number
            context.emitter.progress(20 * number)
    return {"counted": done}
