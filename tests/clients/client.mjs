// The official TypeScript SDK as a client of a Provost node.
//
// Reads URL and TOKEN from the environment and expects the tools of the everything-server (see
// tests/src/everything). Prints `ok NAME` for each check; the first failure ends it with a non-zero
// exit status. MODES limits it to some of `modern legacy auto`, for servers that have one era only.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const URL_ = process.env.URL;
const TOKEN = process.env.TOKEN ?? '';
const MODES = (process.env.MODES ?? 'modern legacy auto').split(' ');
// Whole run. A busy machine is slow, a hung one is a failure.
const LIMIT_MS = 120_000;
// How long the upstream may take to notice a cancelled call.
const CANCEL_LIMIT_MS = 15_000;
const FORM = { username: 'ada', email: 'ada@example.com' };

const firstText = (result) => result.content.find((block) => block.type === 'text').text;

const checks = {
  async lists(client) {
    const names = new Set((await client.listTools()).tools.map((tool) => tool.name));
    for (const name of ['test_simple_text', 'test_tool_with_progress', 'test_elicitation', 'slow']) {
      assert(names.has(name), `tools/list lacks ${name}`);
    }
    assert((await client.listPrompts()).prompts.length > 0, 'no prompts');
    assert((await client.listResources()).resources.length > 0, 'no resources');
  },

  async calls(client) {
    const result = await client.callTool({ name: 'test_simple_text', arguments: {} });
    assert(!result.isError, JSON.stringify(result));
    assert.equal(firstText(result), 'This is a simple text response for testing.');
  },

  async tool_error(client) {
    const result = await client.callTool({ name: 'test_error_handling', arguments: {} });
    assert.equal(result.isError, true, 'a failing tool must say isError');
  },

  async progress(client) {
    const seen = [];
    const onprogress = ({ progress, total }) => seen.push([progress, total]);
    const result = await client.callTool({ name: 'test_tool_with_progress', arguments: {} }, { onprogress });
    assert(!result.isError, JSON.stringify(result));
    assert.deepEqual(seen, [[0, 100], [50, 100], [100, 100]]);
  },

  async cancels(client) {
    const cancelled = async () => Number(firstText(await client.callTool({ name: 'count_cancelled', arguments: {} })));
    const before = await cancelled();
    const abort = new AbortController();
    const slow = client.callTool({ name: 'slow', arguments: { ms: 60_000 } }, { signal: abort.signal });
    const refused = assert.rejects(slow, 'a cancelled call must not answer');
    await sleep(1_000);
    abort.abort('no longer wanted');
    await refused;
    const end = Date.now() + CANCEL_LIMIT_MS;
    while ((await cancelled()) <= before) {
      assert(Date.now() < end, 'the upstream never saw the cancellation');
      await sleep(100);
    }
  },

  async elicits(client) {
    const result = await client.callTool({ name: 'test_elicitation', arguments: { message: 'Who are you?' } });
    const text = firstText(result);
    assert(text.includes('accept') && text.includes(FORM.email), text);
  },
};

async function run(mode) {
  const client = new Client(
    { name: 'provost-client-checks', version: '1.0.0' },
    { capabilities: { elicitation: { form: {} } }, versionNegotiation: { mode } },
  );
  client.setRequestHandler('elicitation/create', async (request) => {
    assert.deepEqual(Object.keys(request.params.requestedSchema.properties).sort(), Object.keys(FORM).sort());
    return { action: 'accept', content: FORM };
  });
  const requestInit = TOKEN ? { headers: { Authorization: `Bearer ${TOKEN}` } } : {};
  await client.connect(new StreamableHTTPClientTransport(new URL(URL_), { requestInit }));
  const version = client.getNegotiatedProtocolVersion();
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check(client);
    } catch (error) {
      console.log(`FAILED ${name} (${version})`);
      throw error;
    }
    console.log(`ok ${name} (${version})`);
  }
  await client.close();
}

setTimeout(() => {
  console.error(`not done after ${LIMIT_MS} ms`);
  process.exit(1);
}, LIMIT_MS).unref();

for (const mode of MODES) {
  await run(mode === 'modern' ? { pin: '2026-07-28' } : mode);
}
process.exit(0);
