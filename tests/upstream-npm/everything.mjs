// An everything-server on the official TypeScript SDK: each tool, prompt and resource that the
// official conformance suite calls for, and what tests/clients/client.mjs calls.
//
//   node everything.mjs --era modern|legacy --http 127.0.0.1:PORT
//
// Purpose: a second upstream behind the gateway, of another SDK than tests/src/everything, with the
// same names and answers. One process speaks one era, so that a test knows which one it tests.
// Invariant: a handler is written once; where it needs input it returns an `input_required` result,
// which the SDK turns into requests to the client of a legacy session.
// Left out: tasks (the SDK does not serve the extension), and anything of Provost but INPUT_KEY.
// One file, since run.sh puts a copy of it where its modules are; most of it is tables.

import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  localhostHostValidation,
  localhostOriginValidation,
  NodeStreamableHTTPServerTransport,
  toNodeHandler,
} from '@modelcontextprotocol/node';
import {
  createMcpHandler,
  createRequestStateCodec,
  inputRequired,
  MissingRequiredClientCapabilityError,
  ProtocolError,
  ProtocolErrorCode,
  ResourceNotFoundError,
  Server,
} from '@modelcontextprotocol/server';

// The member of a legacy question's `_meta` that names the input, for gateways that bridge eras.
// Without it one scenario cannot pass through any bridge: the suite wants the very key `user_name`,
// and a legacy question has no place for one.
const INPUT_KEY = 'io.provost/inputKey';
const CAPABILITIES_KEY = 'io.modelcontextprotocol/clientCapabilities';
// Between two steps of a tool that reports on its way.
const STEP_MS = 50;
// Legacy sessions kept; the oldest goes first.
const MAX_SESSIONS = 256;
// A red pixel, PNG, and an empty sound, WAV, both base64.
const PIXEL_PNG =
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8/5+hHgAHggJ/PchI7wAAAABJRU5ErkJggg==';
const SILENCE_WAV = 'UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA=';

// Signs the `requestState`; a test server has no secrets.
const states = createRequestStateCodec({ key: 'everything-server-state-key-0001' });
// How many calls of `slow` were cancelled.
let cancelled = 0;

const { era, host, port } = readArguments(process.argv.slice(2));
const modern = era === 'modern';

function readArguments(args) {
  const given = { '--era': undefined, '--http': undefined };
  for (let i = 0; i < args.length; i += 2) {
    if (!(args[i] in given) || args[i + 1] === undefined) usage();
    given[args[i]] = args[i + 1];
  }
  const [, address, digits] = /^(.+):(\d+)$/.exec(given['--http'] ?? '') ?? [];
  if (!['modern', 'legacy'].includes(given['--era']) || digits === undefined) usage();
  return { era: given['--era'], host: address, port: Number(digits) };
}

function usage() {
  console.error('usage: everything.mjs --era modern|legacy --http HOST:PORT');
  process.exit(2);
}

// --- What a handler returns

const text = (line) => ({ type: 'text', text: line });
const image = { type: 'image', data: PIXEL_PNG, mimeType: 'image/png' };
const resource = (uri, mimeType, body) => ({ type: 'resource', resource: { uri, mimeType, text: body } });
const answer = (...content) => ({ content });
const unknown = (what, name) => new ProtocolError(ProtocolErrorCode.InvalidParams, `there is no ${what} \`${name}\``);

// --- Asking the client

const string = { type: 'string' };

/** An elicitation with these properties, all required. */
const form = (message, properties) => ({
  method: 'elicitation/create',
  params: {
    mode: 'form',
    message,
    requestedSchema: { type: 'object', properties, required: Object.keys(properties) },
  },
});
const sampling = (prompt) => ({
  method: 'sampling/createMessage',
  params: { messages: [{ role: 'user', content: text(prompt) }], maxTokens: 100 },
});
const roots = () => ({ method: 'roots/list', params: {} });

/** A legacy question bears its key in `_meta`; a modern one is a member of that name already. */
function named(key, request) {
  if (modern || request.method !== 'elicitation/create') return request;
  return { ...request, params: { ...request.params, _meta: { [INPUT_KEY]: key } } };
}

/**
 * The answers to all of `wanted`, or the result that asks for those that are missing. A client may
 * answer in a form that is none: what is no object is asked for again.
 */
function ask(ctx, wanted, requestState) {
  const given = ctx.mcpReq.inputResponses ?? {};
  const isAnswer = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);
  const missing = Object.entries(wanted).filter(([key]) => !isAnswer(given[key]));
  if (missing.length === 0) return { answers: given };
  const inputRequests = Object.fromEntries(missing.map(([key, request]) => [key, named(key, request)]));
  return { asks: inputRequired({ inputRequests, requestState }) };
}

/** Asks one question under `key` and makes the result of its answer. */
function asking(key, request, finish) {
  return (args, ctx) => {
    const { asks, answers } = ask(ctx, { [key]: request(args) });
    return asks ?? answer(text(finish(answers[key])));
  };
}

const sampledText = ({ content }) => (Array.isArray(content) ? content[0] : content)?.text ?? '';
const elicited = ({ action, content }) => `action=${action}, content=${JSON.stringify(content)}`;
const completed = (reply) => `Elicitation completed: ${elicited(reply)}`;

const userName = form('What is your name?', { name: string });
const greeting = sampling('Generate a greeting');

async function twoRounds(_, ctx) {
  const round = ctx.mcpReq.requestState()?.round ?? 0;
  if (round < 2) {
    const step1 = form('Step 1: What is your name?', { name: string });
    const { asks } = ask(ctx, { step1 }, await states.mint({ round: 1 }));
    if (asks) return asks;
  }
  const step2 = form('Step 2: What is your favorite color?', { color: string });
  const { asks } = ask(ctx, { step2 }, await states.mint({ round: 2 }));
  return asks ?? answer(text('Both rounds are done'));
}

/** The SDK has verified the state before this runs, and refused the call if it is not ours. */
async function confirmWithState(_, ctx) {
  const confirm = form('Please confirm', { ok: { type: 'boolean' } });
  const { asks } = ask(ctx, { confirm }, await states.mint({ round: 1 }));
  return asks ?? answer(text('Confirmed: state-ok'));
}

async function threeInputs(_, ctx) {
  const wanted = { user_name: userName, greeting, client_roots: roots() };
  const { asks, answers } = ask(ctx, wanted, await states.mint({ round: 1 }));
  return asks ?? answer(text(`Inputs: ${Object.keys(answers).sort().join(', ')}`));
}

const capabilities = (ctx, { server }) =>
  (modern ? ctx.mcpReq.envelope?.[CAPABILITIES_KEY] : server.getClientCapabilities()) ?? {};

/** Asks only for what the client can do. */
function whatTheClientCan(_, ctx, session) {
  const can = capabilities(ctx, session);
  const wanted = {
    ...(can.elicitation && { user_name: userName }),
    ...(can.sampling && { greeting }),
    ...(can.roots && { client_roots: roots() }),
  };
  const { asks, answers } = ask(ctx, wanted);
  return asks ?? answer(text(`Inputs: ${Object.keys(answers).sort().join(', ')}`));
}

function needsSampling(_, ctx, session) {
  if (capabilities(ctx, session).sampling) return answer(text('The capability is there'));
  throw new MissingRequiredClientCapabilityError({ requiredCapabilities: { sampling: {} } });
}

// --- Tools

const object = (properties, required = []) => ({ type: 'object', properties, required });
const EMPTY = { type: 'object', properties: {} };

const options = (prefix) => [1, 2, 3].map((n) => `${prefix}${n}`);
const titled = (what) =>
  ['First', 'Second', 'Third'].map((nth, i) => ({ const: `value${i + 1}`, title: `${nth} ${what}` }));

/** The schema that the suite wants back unchanged. */
const JSON_SCHEMA_2020_12 = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  type: 'object',
  $defs: { address: { $anchor: 'addressDef', type: 'object', properties: { street: string, city: string } } },
  properties: {
    name: string,
    address: { $ref: '#/$defs/address' },
    contactMethod: { type: 'string', enum: ['phone', 'email'] },
    phone: string,
    email: string,
  },
  allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
  if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
  then: { required: ['phone'] },
  else: { required: ['email'] },
  additionalProperties: false,
};

async function logThree(_, ctx) {
  for (const line of ['Tool execution started', 'Tool processing data', 'Tool execution completed']) {
    await ctx.mcpReq.log('info', line);
    await sleep(STEP_MS);
  }
  return answer(text('Logging completed'));
}

async function progress(_, ctx) {
  const progressToken = ctx.mcpReq._meta?.progressToken;
  for (const done of [0, 50, 100]) {
    if (progressToken !== undefined) {
      const params = { progressToken, progress: done, total: 100 };
      await ctx.mcpReq.notify({ method: 'notifications/progress', params });
    }
    await sleep(STEP_MS);
  }
  return answer(text('Progress completed'));
}

async function slow({ ms }, ctx) {
  try {
    await sleep(ms, undefined, { signal: ctx.mcpReq.signal });
  } catch {
    cancelled += 1;
    return answer(text('cancelled'));
  }
  return answer(text('slept'));
}

/** Name: description, what it does with (arguments, context, session), input schema. */
const TOOLS = {
  test_simple_text: ['Returns a text.', () => answer(text('This is a simple text response for testing.'))],
  test_image_content: ['Returns an image.', () => answer(image)],
  test_audio_content: [
    'Returns a sound.',
    () => answer({ type: 'audio', data: SILENCE_WAV, mimeType: 'audio/wav' }),
  ],
  test_embedded_resource: [
    'Returns a resource.',
    () => answer(resource('test://embedded-resource', 'text/plain', 'This is an embedded resource content.')),
  ],
  test_multiple_content_types: [
    'Returns a text, an image and a resource.',
    () =>
      answer(
        text('Multiple content types test:'),
        image,
        resource('test://mixed-content-resource', 'application/json', '{"test":"data","value":123}'),
      ),
  ],
  test_error_handling: [
    'Fails, as a tool does.',
    () => ({ isError: true, ...answer(text('This tool intentionally returns an error for testing')) }),
  ],
  test_tool_with_logging: ['Logs three messages while it runs.', logThree],
  test_logging_tool: [
    'Logs one message if logging is asked for.',
    async (_, ctx) => {
      await ctx.mcpReq.log('info', 'a message');
      return answer(text('Logging tool completed'));
    },
  ],
  test_tool_with_progress: ['Reports progress three times.', progress],
  test_reconnection: [
    'Answers after a moment.',
    async () => {
      await sleep(2 * STEP_MS);
      return answer(text('Reconnection test completed'));
    },
  ],
  test_sampling: [
    "Asks the client's model.",
    asking('input', ({ prompt }) => sampling(prompt), (reply) => `LLM response: ${sampledText(reply)}`),
    object({ prompt: string }, ['prompt']),
  ],
  test_elicitation: [
    'Asks the user.',
    asking(
      'input',
      ({ message }) =>
        form(message, {
          username: { type: 'string', description: "User's response" },
          email: { type: 'string', description: "User's email address" },
        }),
      (reply) => `User response: ${elicited(reply)}`,
    ),
    object({ message: string }, ['message']),
  ],
  test_elicitation_sep1034_defaults: [
    'Asks with a form that has defaults.',
    asking(
      'input',
      () =>
        form('Please check the values', {
          name: { type: 'string', default: 'John Doe' },
          age: { type: 'integer', default: 30 },
          score: { type: 'number', default: 95.5 },
          status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' },
          verified: { type: 'boolean', default: true },
        }),
      completed,
    ),
  ],
  test_elicitation_sep1330_enums: [
    'Asks with a form of choices.',
    asking(
      'input',
      () =>
        form('Please choose', {
          untitledSingle: { type: 'string', enum: options('option') },
          titledSingle: { type: 'string', oneOf: titled('Option') },
          legacyEnum: {
            type: 'string',
            enum: options('opt'),
            enumNames: ['Option One', 'Option Two', 'Option Three'],
          },
          untitledMulti: { type: 'array', items: { type: 'string', enum: options('option') } },
          titledMulti: { type: 'array', items: { anyOf: titled('Choice') } },
        }),
      completed,
    ),
  ],
  test_streaming_elicitation: [
    'Asks for a value.',
    asking('input', () => form('Provide a value', { value: string }), completed),
  ],
  test_input_required_result_elicitation: [
    'Asks for a name.',
    asking('user_name', () => userName, ({ content }) => `Hello, ${content?.name ?? 'friend'}!`),
  ],
  test_input_required_result_sampling: [
    'Asks for a sampled text.',
    asking(
      'capital_question',
      () => sampling('What is the capital of France?'),
      (reply) => `Sampled: ${sampledText(reply)}`,
    ),
  ],
  test_input_required_result_list_roots: [
    'Asks for the roots.',
    asking('client_roots', roots, (reply) => `Roots: ${JSON.stringify(reply.roots)}`),
  ],
  test_input_required_result_request_state: ['Asks, and checks its state.', confirmWithState],
  test_input_required_result_tampered_state: ['Refuses state that it did not make.', confirmWithState],
  test_input_required_result_multiple_inputs: ['Asks for three inputs at once.', threeInputs],
  test_input_required_result_multi_round: ['Asks twice.', twoRounds],
  test_input_required_result_capabilities: ['Asks only for what the client can do.', whatTheClientCan],
  test_missing_capability: ['Needs the sampling capability.', needsSampling],
  test_trigger_tool_change: [
    'Says that the tool list changed.',
    async (_, ctx, session) => {
      await announce(session, 'tools');
      return answer(text('The tool list changed'));
    },
  ],
  test_trigger_prompt_change: [
    'Says that the prompt list changed.',
    async (_, ctx, session) => {
      await announce(session, 'prompts');
      return answer(text('The prompt list changed'));
    },
  ],
  touch_resource: [
    'Says that a resource changed.',
    async ({ uri }, ctx, session) => {
      await announce(session, 'resource', uri);
      return answer(text('touched'));
    },
    object({ uri: string }, ['uri']),
  ],
  test_custom_header: [
    'Has a parameter that is mirrored in a header.',
    ({ value }) => answer(text(value)),
    object({ value: { type: 'string', 'x-mcp-header': 'Value' } }, ['value']),
  ],
  json_schema_2020_12_tool: [
    'Has a schema with references.',
    (args) => answer(text(JSON.stringify(args))),
    JSON_SCHEMA_2020_12,
  ],
  slow: [
    'Waits until it is cancelled or the time is over.',
    slow,
    object({ ms: { type: 'integer', minimum: 0 } }, ['ms']),
  ],
  count_cancelled: ['How many calls of `slow` were cancelled.', () => answer(text(String(cancelled)))],
};

// --- Prompts

const argument = (name, description) => ({ name, description, required: true });
const user = (content) => ({ role: 'user', content });

/** Name: description, what it returns for (arguments, context), arguments. */
const PROMPTS = {
  test_simple_prompt: [
    'A prompt without arguments.',
    () => ({ messages: [user(text('This is a simple prompt for testing.'))] }),
  ],
  test_prompt_with_arguments: [
    'A prompt with two arguments.',
    ({ arg1, arg2 }) => ({
      messages: [user(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`))],
    }),
    [argument('arg1', 'The first.'), argument('arg2', 'The second.')],
  ],
  test_prompt_with_embedded_resource: [
    'A prompt with a resource.',
    ({ resourceUri }) => ({
      messages: [
        user(resource(resourceUri, 'text/plain', 'Embedded resource content for testing.')),
        user(text('Please process the embedded resource above.')),
      ],
    }),
    [argument('resourceUri', 'Which.')],
  ],
  test_prompt_with_image: [
    'A prompt with an image.',
    () => ({ messages: [user(image), user(text('Please analyze the image above.'))] }),
  ],
  test_input_required_result_prompt: [
    'A prompt that asks first.',
    (_, ctx) => {
      const question = form('What context should the prompt use?', { context: string });
      const { asks, answers } = ask(ctx, { user_context: question });
      const context = answers?.user_context.content?.context ?? '';
      return asks ?? { messages: [user(text(`Prompt with context: ${context}`))] };
    },
  ],
};

// --- Resources

const RESOURCES = [
  { uri: 'test://static-text', name: 'Static text', mimeType: 'text/plain' },
  { uri: 'test://static-binary', name: 'Static image', mimeType: 'image/png' },
  { uri: 'test://watched-resource', name: 'Watched', mimeType: 'text/plain' },
];
const TEMPLATES = [
  { uriTemplate: 'test://template/{id}/data', name: 'Data by id', mimeType: 'application/json' },
];

function read(uri) {
  const [, id] = /^test:\/\/template\/([^/]+)\/data$/.exec(uri) ?? [];
  if (id !== undefined) {
    const data = { id, templateTest: true, data: `Data for ID: ${id}` };
    return { uri, mimeType: 'application/json', text: JSON.stringify(data) };
  }
  const known = RESOURCES.find((each) => each.uri === uri);
  if (!known) throw new ResourceNotFoundError(uri);
  const contents = {
    'test://static-text': { text: 'This is the content of the static text resource.' },
    'test://static-binary': { blob: PIXEL_PNG },
    'test://watched-resource': { text: 'Watched resource content.' },
  };
  return { uri, mimeType: known.mimeType, ...contents[uri] };
}

// --- The server

const COMPLETIONS = ['test-one', 'test-two', 'paris', 'park', 'party'];
const LISTS_MAY_BE_KEPT = { ttlMs: 60_000, cacheScope: 'public' };

/** One server: of one request in the modern era, of one session in the legacy one. */
function everything() {
  const server = new Server(
    { name: 'everything-npm', version: '1.0.0' },
    {
      capabilities: {
        tools: { listChanged: true },
        prompts: { listChanged: true },
        resources: { listChanged: true, subscribe: true },
        logging: {},
        completions: {},
      },
      instructions: 'A server with one of everything, for tests.',
      requestState: { verify: states.verify },
      cacheHints: {
        'tools/list': LISTS_MAY_BE_KEPT,
        'prompts/list': LISTS_MAY_BE_KEPT,
        'resources/list': LISTS_MAY_BE_KEPT,
        'resources/templates/list': LISTS_MAY_BE_KEPT,
      },
    },
  );
  // What the legacy session subscribed to.
  const watched = new Set();
  const session = { server, watched };

  server.setRequestHandler('tools/list', () => ({
    tools: Object.entries(TOOLS).map(([name, [description, , inputSchema = EMPTY]]) => ({
      name,
      description,
      inputSchema,
    })),
  }));
  server.setRequestHandler('tools/call', ({ params }, ctx) => {
    const [, run] = (Object.hasOwn(TOOLS, params.name) && TOOLS[params.name]) || [];
    if (!run) throw unknown('tool', params.name);
    return run(params.arguments ?? {}, ctx, session);
  });
  server.setRequestHandler('prompts/list', () => ({
    prompts: Object.entries(PROMPTS).map(([name, [description, , args]]) => ({
      name,
      description,
      ...(args && { arguments: args }),
    })),
  }));
  server.setRequestHandler('prompts/get', ({ params }, ctx) => {
    const [, get] = (Object.hasOwn(PROMPTS, params.name) && PROMPTS[params.name]) || [];
    if (!get) throw unknown('prompt', params.name);
    return get(params.arguments ?? {}, ctx);
  });
  server.setRequestHandler('resources/list', () => ({ resources: RESOURCES }));
  server.setRequestHandler('resources/templates/list', () => ({ resourceTemplates: TEMPLATES }));
  server.setRequestHandler('resources/read', ({ params }) => ({ contents: [read(params.uri)] }));
  server.setRequestHandler('completion/complete', ({ params }) => {
    const values = COMPLETIONS.filter((value) => value.startsWith(params.argument.value));
    return { completion: { values, total: values.length, hasMore: false } };
  });
  if (!modern) {
    server.setRequestHandler('resources/subscribe', ({ params }) => {
      watched.add(params.uri);
      return {};
    });
    server.setRequestHandler('resources/unsubscribe', ({ params }) => {
      watched.delete(params.uri);
      return {};
    });
  }
  return server;
}

/** Tells every open modern subscription, or the caller's own legacy session. */
async function announce({ server, watched }, what, uri) {
  if (modern) {
    const { notify } = modernHandler;
    if (what === 'tools') notify.toolsChanged();
    else if (what === 'prompts') notify.promptsChanged();
    else notify.resourceUpdated(uri);
  } else if (what === 'tools') await server.sendToolListChanged();
  else if (what === 'prompts') await server.sendPromptListChanged();
  else if (watched.has(uri)) await server.sendResourceUpdated({ uri });
}

// --- Serving it

const report = (error) => console.error(error.message);
const modernHandler = modern ? createMcpHandler(everything, { legacy: 'reject', onerror: report }) : undefined;

/** Serves each legacy session with a server of its own. */
function legacyHandler() {
  const sessions = new Map();
  return async (request, response) => {
    const id = request.headers['mcp-session-id'];
    const known = sessions.get(id);
    if (id !== undefined && known === undefined) {
      const error = { code: -32001, message: 'there is no such session' };
      response.writeHead(404, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ jsonrpc: '2.0', id: null, error }));
      return;
    }
    const transport = known ?? (await newSession(sessions));
    await transport.handleRequest(request, response);
  };
}

/** A transport that is kept if its first request turns out to be `initialize`; the SDK refuses others. */
async function newSession(sessions) {
  const transport = new NodeStreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    onsessioninitialized: (id) => {
      sessions.set(id, transport);
      const [oldest] = sessions.keys();
      if (sessions.size > MAX_SESSIONS) {
        sessions.get(oldest).close().catch(report);
        sessions.delete(oldest);
      }
    },
    onsessionclosed: (id) => sessions.delete(id),
  });
  const server = everything();
  server.onerror = report;
  await server.connect(transport);
  return transport;
}

const handle = modern ? toNodeHandler(modernHandler, { onerror: report }) : legacyHandler();
const validHost = localhostHostValidation();
const validOrigin = localhostOriginValidation();

const http = createServer((request, response) => {
  if (!validHost(request, response) || !validOrigin(request, response)) return;
  if (new URL(request.url, 'http://localhost').pathname !== '/mcp') {
    response.writeHead(404).end();
    return;
  }
  handle(request, response).catch((error) => {
    report(error);
    if (!response.headersSent) response.writeHead(500);
    response.end();
  });
});
http.listen(port, host, () => console.log(`listening http://${host}:${http.address().port}/mcp`));
