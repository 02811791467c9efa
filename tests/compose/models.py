"""Models of the GPU node: asked through data-plane nodes, while it is there and after it was lost."""

import http.client
import json

from world import GPU_NODE, expect, run, wait

# The longest that an answer takes, seconds.
CHAT_LIMIT = 60
# The first agent may use the model of the fixtures.
MAY = """
apiVersion: provost/v1
kind: Role
metadata: { name: models, tenant: acme }
spec: { rules: [ { models: [tiny-chat] } ] }
---
apiVersion: provost/v1
kind: RoleBinding
metadata: { name: models, tenant: acme }
spec: { role: models, principals: [ana] }
"""


def chat(world):
    """Status and text of an answer, asked for through the front."""
    body = {"model": "tiny-chat", "max_tokens": 8, "messages": [{"role": "user", "content": "hello"}]}
    headers = {"host": "localhost", "authorization": f"Bearer {world.token}", "content-type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", world.port, timeout=CHAT_LIMIT)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except http.client.HTTPException as cause:
        raise OSError(repr(cause)) from cause
    finally:
        connection.close()


def answered(world):
    """Answers that data-plane nodes had from the GPU node since they started."""
    series = f'provost_gpu_node_requests_total{{node="{GPU_NODE}",outcome="answered"}}'
    return sum(world.metric(f"dp-{number}", series) for number in world.containers("data-plane"))


def models(world):
    """The GPU node answers for data-plane nodes, comes back when it is killed, and joins anew when its folder is lost."""
    world.apply(MAY)
    wait(lambda: chat(world)[0] == 200, "an answer of the model")
    before = answered(world)
    status, text = chat(world)
    expect(status == 200, f"the model answers {status} {text[:300]}")
    wait(lambda: answered(world) > before, "gpu-1 gave the answer")

    restarts = int(world.inspect(GPU_NODE, "{{.RestartCount}}"))
    world.kill(GPU_NODE)
    wait(lambda: int(world.inspect(GPU_NODE, "{{.RestartCount}}")) > restarts, "gpu-1 is started again")
    world.gpu_node_serves()
    wait(lambda: chat(world)[0] == 200, "an answer after gpu-1 was killed")

    old = world.members()[GPU_NODE]
    world.compose("rm", "--stop", "--force", GPU_NODE)
    run("docker", "volume", "rm", f"{world.env['COMPOSE_PROJECT_NAME']}_{GPU_NODE}")
    world.up()
    wait(lambda: world.members().get(GPU_NODE, 0) > old, "gpu-1 is let in anew")
    world.gpu_node_serves()
    wait(lambda: chat(world)[0] == 200, "an answer after gpu-1 lost its folder")
    world.whole()
    return f"gpu-1 answered, was killed, and was {old} and is {world.members()[GPU_NODE]} after the loss of its folder"
