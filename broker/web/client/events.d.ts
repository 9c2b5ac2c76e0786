/** Made by `runcast openapi --typescript` from the types of the edge. */

export type State = "cancelled" | "completed" | "failed" | "queued" | "running" | "waiting_input";

/** The request that started an execution. Credentials in it are `"[redacted]"`. `by`: who sent it; an execution that another started has a `parent` instead. `budget`: the smallest of the limits that were given and those of the settings. An execution that was never requested, but published, has only its id, state and owner. */
export interface AcceptedRequest {
  /** id of an execution, unique per user */
  executionId: string;
  state: State;
  user: string;
  org: string;
  by?: string;
  task?: string;
  agent?: string;
  params?: Record<string, unknown>;
  metadata?: Record<string, unknown>;
  conversationId?: string;
  /** milliseconds since the epoch */
  notBefore?: number;
  onDisconnect?: OnDisconnect;
  budget?: Budget;
  /** milliseconds since the epoch */
  createdAt?: number;
  attempt?: number;
  parent?: string;
  root?: string;
  onParentEnd?: string;
  key?: string;
}

/** The last `status` event. */
export interface Activity {
  status: string;
  message: string;
}

/** An agent as its workers announce it. `input_schema` is a JSON Schema of `params`; modes are media types; examples are tasks, in which braces are for the user to fill in. */
export interface AgentInfo {
  name: string;
  description?: string;
  tags?: readonly string[];
  inputSchema?: Record<string, unknown>;
  inputModes?: readonly string[];
  outputModes?: readonly string[];
  acceptsMessages?: boolean;
  examples?: readonly string[];
  budget?: Budget;
}

export interface AgentList {
  agents: readonly AgentInfo[];
}

/** A file or document the agent made; exactly one of text, data and url. Chunks share an `artifact_id`. */
export interface Artifact {
  artifactId: string;
  mediaType: string;
  name?: string;
  text?: string;
  data?: unknown;
  url?: string;
  append?: boolean;
  last?: boolean;
}

/** A file or document the agent made; exactly one of text, data and url. Chunks share an `artifact_id`. */
export interface ArtifactEvent {
  type: "artifact";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: Artifact;
}

/** An artifact put together: the text of its chunks is joined, of `data` and `url` the last counts. `interrupted`: the execution failed or was cancelled before the agent said that it is whole. */
export interface ArtifactState {
  artifactId: string;
  mediaType: string;
  name: string | null;
  text: string | null;
  data: unknown;
  url: string | null;
  complete: boolean;
  interrupted: boolean;
  truncated: boolean;
}

/** What an execution may spend at most, all attempts together; `None`: no limit. Args: total_tokens: tokens of models, as `usage` reports them. cost_usd: their cost in US dollars, as `usage` reports it. tool_calls: calls of tools (`tool:start`). seconds: time under a worker, waits for people and children included. */
export interface Budget {
  totalTokens?: number;
  costUsd?: number;
  toolCalls?: number;
  seconds?: number;
}

/** 80 % of a limit is spent (`continuing`), once for each limit; or all of it (`stopping`), and the execution ends with code `budget_exceeded`. */
export interface BudgetNotice {
  limit: "costUsd" | "seconds" | "toolCalls" | "totalTokens";
  spent: number;
  max: number;
  action: "continuing" | "stopping";
}

/** 80 % of a limit is spent (`continuing`), once for each limit; or all of it (`stopping`), and the execution ends with code `budget_exceeded`. */
export interface BudgetNoticeEvent {
  type: "budget";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: BudgetNotice;
}

/** What the execution may spend at most, all attempts together. Of its agent's limits and those of the settings, the smallest counts. */
export interface BudgetRequest {
  totalTokens?: number;
  costUsd?: number;
  toolCalls?: number;
  /** time under a worker, waits included */
  seconds?: number;
}

/** The limits of an execution, and what it has spent. */
export interface BudgetState {
  limit: Budget;
  spent: Spent;
}

export interface CancelResponse {
  /** id of an execution, unique per user */
  executionId: string;
  state: State;
}

export interface Cancellation {
  reason: string | null;
  by: string | null;
}

/** A child has ended before this execution. `summary` is the beginning of its result, or why it failed or was cancelled; `usage` what it and its own children used. At most one per child, over all attempts. */
export interface ChildEnded {
  executionId: string;
  state: "cancelled" | "completed" | "failed";
  summary?: string;
  usage?: Usage;
}

/** A child has ended before this execution. `summary` is the beginning of its result, or why it failed or was cancelled; `usage` what it and its own children used. At most one per child, over all attempts. */
export interface ChildEndedEvent {
  type: "child:ended";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: ChildEnded;
}

/** The execution started another one, in a log of its own. `key` is the name that the agent gave it, `detached` one that goes on when this execution ends. Exactly one per child, over all attempts. */
export interface ChildStarted {
  executionId: string;
  agent: string;
  task: string;
  key?: string;
  detached?: boolean;
}

/** The execution started another one, in a log of its own. `key` is the name that the agent gave it, `detached` one that goes on when this execution ends. Exactly one per child, over all attempts. */
export interface ChildStartedEvent {
  type: "child:started";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: ChildStarted;
}

/** A child. `interrupted`: this execution ended, so it is being cancelled; `detached`: it goes on after that. */
export interface ChildState {
  executionId: string;
  status: "cancelled" | "completed" | "detached" | "failed" | "interrupted" | "running";
  agent: string | null;
  task: string | null;
  key: string | null;
  detached: boolean;
  summary: string | null;
  usage: Usage | null;
}

/** An event of a plug-in: type `custom:<name>`, and any object as its data. */
export interface CustomEvent {
  type: `custom:${string}`;
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: Record<string, unknown>;
}

/** An edge as it announces itself. Rates, latency and lag (the mean) are those of the last seconds; events are those that arrived for what is watched there, deliveries those written to viewers. */
export interface EdgeInfo {
  id: string;
  version: string;
  viewers: number;
  logs: number;
  draining: boolean;
  eventsPerSecond: number;
  deliveriesPerSecond: number;
  latencyMs: Latency | null;
  loopLagMs: number | null;
  rssBytes: number | null;
  /** milliseconds since the epoch */
  startedAt: number | null;
  self: boolean;
}

/** One event of a log. Types `custom:<name>` are CustomEvent. */
export type Event =
  | ExecutionQueuedEvent
  | ExecutionStartedEvent
  | PlanCreatedEvent
  | PhaseStartEvent
  | PhaseCompleteEvent
  | ThinkingEvent
  | ThinkingDeltaEvent
  | MessageDeltaEvent
  | MessageCompleteEvent
  | ToolStartEvent
  | ToolProgressEvent
  | ToolCompleteEvent
  | ToolErrorEvent
  | StatusEvent
  | ProgressEvent
  | SpecialistActivatedEvent
  | SpecialistCompleteEvent
  | PartialResultEvent
  | SynthesisEvent
  | ArtifactEvent
  | UsageTotalsEvent
  | ModelCallEvent
  | InputRequiredEvent
  | InputReceivedEvent
  | UserMessageEvent
  | UserMessageTakenEvent
  | UserMessageDroppedEvent
  | ChildStartedEvent
  | ChildEndedEvent
  | TimeoutEvent
  | BudgetNoticeEvent
  | SandboxViolationEvent
  | ExecutionSupersededEvent
  | ExecutionCompleteEvent
  | ExecutionErrorEvent
  | ExecutionCancelledEvent
  | CustomEvent;

/** Events after the cursor that was asked for; `next_after` continues, if there are more. `first_seq` above what was asked for means that the log was trimmed. */
export interface EventPage {
  events: readonly LoggedEvent[];
  state: State;
  /** `<ms>-<seq>`: a place in a log */
  nextAfter?: string;
  firstSeq?: number;
}

export interface ExecuteRequest {
  /** what the agent is asked to do */
  task: string;
  agent?: string;
  params?: Record<string, unknown>;
  metadata?: Record<string, unknown>;
  /** id of an execution, unique per user */
  executionId?: string;
  /** id of an execution, unique per user */
  conversationId?: string;
  /** start no earlier, milliseconds since the epoch */
  notBefore?: number;
  onDisconnect?: OnDisconnect;
  webhook?: WebhookRequest;
  /** id of an execution, unique per user */
  parentExecutionId?: string;
  onParentEnd?: "cancel" | "detach";
  budget?: BudgetRequest;
}

export interface ExecuteResponse {
  /** id of an execution, unique per user */
  executionId: string;
  state: State;
  streamUrl: string;
}

/** Terminal. */
export interface ExecutionCancelled {
  reason?: string;
  by?: string;
}

/** Terminal. */
export interface ExecutionCancelledEvent {
  type: "execution:cancelled";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: ExecutionCancelled;
}

/** Terminal. */
export interface ExecutionComplete {
  result: unknown;
  /** seconds */
  duration: number;
  tokensUsed?: number;
}

/** Terminal. */
export interface ExecutionCompleteEvent {
  type: "execution:complete";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: ExecutionComplete;
}

/** Terminal. A stack trace never travels in the event; it is kept in the execution's record. */
export interface ExecutionError {
  error: string;
  code?: string;
}

/** Terminal. A stack trace never travels in the event; it is kept in the execution's record. */
export interface ExecutionErrorEvent {
  type: "execution:error";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: ExecutionError;
}

/** Newest first. `next_cursor` continues the list; without it this is the last page. */
export interface ExecutionList {
  executions: readonly ExecutionSummary[];
  nextCursor?: string;
}

/** An execution and those below it, by their records. `usage` is what all of these used as far as it is known. `truncated`: it has children that are not there, because the tree has too many executions for one answer. */
export interface ExecutionNode {
  executionId: string;
  state: State;
  agent: string | null;
  task: string | null;
  key: string | null;
  parent: string | null;
  root: string | null;
  detached: boolean;
  /** milliseconds since the epoch */
  createdAt: number | null;
  /** milliseconds since the epoch */
  updatedAt: number | null;
  usage: Usage | null;
  truncated: boolean;
  children: readonly ExecutionNode[];
}

/** Written by the broker when it accepts the execution. */
export interface ExecutionQueued {
  task: string;
  agent: string;
  budget?: Budget;
}

/** Written by the broker when it accepts the execution. */
export interface ExecutionQueuedEvent {
  type: "execution:queued";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: ExecutionQueued;
}

/** `budget`: the limits that count from now on, and what earlier attempts have spent. */
export interface ExecutionStarted {
  task: string;
  /** milliseconds since the epoch */
  startedAt: number;
  /** counts from 1 */
  attempt: number;
  budget?: BudgetState;
}

/** `budget`: the limits that count from now on, and what earlier attempts have spent. */
export interface ExecutionStartedEvent {
  type: "execution:started";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: ExecutionStarted;
}

/** An execution according to its log up to `cursor`. `text` is every message joined, in order of their beginning. It is bounded: of very many parts the newest are there; of more than some megabytes, those parts that were left alone for longest have only the beginning of their texts (with an ellipsis, or `truncated`), and `{"clipped": true}` in the place of values. The log has all. `params` comes from the execution's record: what it was started with, without credentials; of very large ones the largest members are clipped, and `GET …/request` has all. */
export interface ExecutionState {
  executionId: string;
  status: State;
  cursor: string;
  task: string | null;
  agent: string | null;
  params: Record<string, unknown> | null;
  attempt: number;
  /** milliseconds since the epoch */
  startedAt: number | null;
  /** milliseconds since the epoch */
  endedAt: number | null;
  /** seconds */
  duration: number | null;
  activity: Activity | null;
  progress: ProgressState | null;
  plan: Plan | null;
  phases: readonly PhaseState[];
  tools: readonly ToolState[];
  thinking: readonly ThoughtState[];
  messages: readonly MessageState[];
  text: string;
  specialists: readonly SpecialistState[];
  synthesis: Synthesis | null;
  partialResults: readonly PartialState[];
  artifacts: readonly ArtifactState[];
  children: readonly ChildState[];
  usage: UsageTotals | null;
  budget: BudgetState | null;
  openInputs: readonly InputRequired[];
  userMessages: readonly UserMessageState[];
  result: unknown;
  error: Failure | null;
  cancelled: Cancellation | null;
}

export interface ExecutionSummary {
  /** id of an execution, unique per user */
  executionId: string;
  state: State;
  task?: string;
  agent?: string;
  attempt?: number;
  /** milliseconds since the epoch */
  createdAt?: number;
  /** milliseconds since the epoch */
  updatedAt?: number;
  conversationId?: string;
  metadata?: Record<string, unknown>;
  /** `<ms>-<seq>`: a place in a log */
  cursor?: string;
  parent?: string;
  root?: string;
  budget?: BudgetState;
}

/** A retry took over: what the old attempt wrote after `from_seq` is void. */
export interface ExecutionSuperseded {
  fromSeq: number;
  /** counts from 1 */
  attempt: number;
}

/** A retry took over: what the old attempt wrote after `from_seq` is void. */
export interface ExecutionSupersededEvent {
  type: "execution:superseded";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: ExecutionSuperseded;
}

/** `stack` comes from the execution's record, and only for those who may see it. */
export interface Failure {
  error: string;
  code: string | null;
  stack: string | null;
}

/** Exactly one per input: the first answer wins. `declined`: the person does not want to answer; of an approval the value is then false. */
export interface InputReceived {
  inputId: string;
  by: string;
  value?: unknown;
  declined?: boolean;
}

/** Exactly one per input: the first answer wins. `declined`: the person does not want to answer; of an approval the value is then false. */
export interface InputReceivedEvent {
  type: "input:received";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: InputReceived;
}

/** The agent waits for a person. `schema` is a JSON Schema, for kind `form`; a `text` whose schema is `{}` may be answered by any JSON. */
export interface InputRequired {
  inputId: string;
  prompt: string;
  kind: "approval" | "choice" | "form" | "text";
  options?: readonly string[];
  schema?: Record<string, unknown>;
  /** milliseconds since the epoch */
  expiresAt?: number;
}

/** The agent waits for a person. `schema` is a JSON Schema, for kind `form`; a `text` whose schema is `{}` may be answered by any JSON. */
export interface InputRequiredEvent {
  type: "input:required";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: InputRequired;
}

export interface InputResponse {
  /** id of an execution, unique per user */
  executionId: string;
  inputId: string;
}

/** From append to socket write, in milliseconds. */
export interface Latency {
  p50: number;
  p99: number;
}

/** One entry of a log. */
export interface LoggedEvent {
  /** `<ms>-<seq>`: a place in a log */
  id: string;
  event: Event;
}

export interface MessageComplete {
  messageId: string;
  text?: string;
  usage?: Usage;
}

export interface MessageCompleteEvent {
  type: "message:complete";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: MessageComplete;
}

/** A chunk of text for the reader. */
export interface MessageDelta {
  messageId: string;
  delta: string;
}

/** A chunk of text for the reader. */
export interface MessageDeltaEvent {
  type: "message:delta";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: MessageDelta;
}

/** In the order in which they were sent. `accepts_messages`: whether one more would be accepted now. */
export interface MessageList {
  messages: readonly UserMessageState[];
  acceptsMessages: boolean;
}

/** What a person says to the running agent: a text, or data, or both. */
export interface MessageRequest {
  text?: string;
  data?: unknown;
  /** id of a message, unique in its execution */
  messageId?: string;
  mode?: "interrupt" | "queue";
}

export interface MessageResponse {
  /** id of an execution, unique per user */
  executionId: string;
  messageId: string;
  state: "dropped" | "queued";
}

/** What was said. `interrupted`: the execution failed or was cancelled before the message was complete. `parent_id` is the call in which a sub-agent said it: that is no part of the state's `text`. */
export interface MessageState {
  messageId: string;
  text: string;
  complete: boolean;
  interrupted: boolean;
  usage: Usage | null;
  truncated: boolean;
  parentId: string | null;
}

/** One call of a model, when it has ended. `prompt` and `answer` are stored only where `RUNCAST_RECORD_MODEL_CONTENTS` is 1. `provider` as OpenTelemetry's `gen_ai.provider.name` has it: `openai`, `anthropic`, `aws.bedrock`. */
export interface ModelCall {
  callId: string;
  model: string;
  inputTokens: number;
  outputTokens: number;
  /** seconds */
  duration: number;
  provider?: string;
  prompt?: unknown;
  answer?: unknown;
  costUsd?: number;
  /** seconds */
  firstTokenSeconds?: number;
  error?: string;
}

/** One call of a model, when it has ended. `prompt` and `answer` are stored only where `RUNCAST_RECORD_MODEL_CONTENTS` is 1. `provider` as OpenTelemetry's `gen_ai.provider.name` has it: `openai`, `anthropic`, `aws.bedrock`. */
export interface ModelCallEvent {
  type: "model:call";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: ModelCall;
}

/** Cancel after this time without a viewer. */
export interface OnDisconnect {
  cancelAfterSeconds: number;
}

/** An agent's queue: jobs that no worker has taken yet, and for how long the first of them has waited. */
export interface OpsAgent {
  name: string;
  workers: number;
  queued: number;
  oldestMs: number | null;
}

/** What is known of Redis: sums over its nodes, the slowest ping. While it is away (`up` is false, `error` says why) there are no nodes, and no numbers. */
export interface OpsRedis {
  up: boolean;
  error: string | null;
  mode: "cluster" | "sentinel" | "standalone" | null;
  version: string | null;
  usedMemoryBytes: number | null;
  maxMemoryBytes: number | null;
  evictionPolicy: string | null;
  connectedClients: number | null;
  opsPerSecond: number | null;
  pingMs: number | null;
  role: "primary" | "replica" | null;
  nodes: readonly RedisNode[];
}

/** How everything is. While Redis is away the others' parts are those of `as_of`, when it was last read. */
export interface OpsSnapshot {
  /** milliseconds since the epoch */
  ts: number;
  /** milliseconds since the epoch */
  asOf: number | null;
  edges: readonly EdgeInfo[];
  workers: readonly OpsWorker[];
  agents: readonly OpsAgent[];
  totals: OpsTotals;
  redis: OpsRedis;
}

/** Over all edges and workers. An event that two edges watch counts at both. */
export interface OpsTotals {
  viewers: number;
  eventsPerSecond: number;
  deliveriesPerSecond: number;
  running: number;
  concurrency: number;
  queued: number;
}

/** A worker as it last announced itself; `agents` are names. `waiting` executions wait for a person or a child, beside those that run. */
export interface OpsWorker {
  id: string;
  host: string;
  pid: number;
  agents: readonly string[];
  running: number;
  concurrency: number;
  waiting: number;
  loopLagMs: number | null;
  rssBytes: number | null;
  /** milliseconds since the epoch */
  startedAt: number | null;
}

export interface PartialResult {
  result: unknown;
  specialist?: string;
}

export interface PartialResultEvent {
  type: "partial:result";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: PartialResult;
}

export interface PartialState {
  result: unknown;
  specialist: string | null;
}

export interface Phase {
  id: string;
  name: string;
}

export interface PhaseComplete {
  phaseId: string;
  phaseName: string;
  /** seconds */
  duration?: number;
}

export interface PhaseCompleteEvent {
  type: "phase:complete";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: PhaseComplete;
}

export interface PhaseStart {
  phaseId: string;
  phaseName: string;
  phaseIndex?: number;
}

export interface PhaseStartEvent {
  type: "phase:start";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: PhaseStart;
}

/** `interrupted`: the execution ended while it ran. One that never began stays `pending`. */
export interface PhaseState {
  id: string;
  name: string;
  status: "complete" | "interrupted" | "pending" | "running";
  index: number | null;
  /** seconds */
  duration: number | null;
}

export interface Plan {
  goal: string;
  phases: readonly Phase[];
}

export interface PlanCreated {
  plan: Plan;
}

export interface PlanCreatedEvent {
  type: "plan:created";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: PlanCreated;
}

/** RFC 9457. `path` is where in the request the error is; some kinds have members of their own besides. */
export interface Problem {
  type: string;
  title: string;
  status: number;
  requestId: string;
  detail?: string;
  path?: string;
}

export interface Progress {
  /** 0 to 100 */
  progress: number;
  currentAction?: string;
  specialist?: string;
}

export interface ProgressEvent {
  type: "progress";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: Progress;
}

export interface ProgressState {
  /** 0 to 100 */
  progress: number;
  currentAction: string | null;
  specialist: string | null;
}

/** One server as it describes itself (INFO); of a cluster the primaries, behind Sentinel the current one. */
export interface RedisNode {
  address: string;
  server: "redis" | "valkey";
  version: string;
  role: "primary" | "replica";
  usedMemoryBytes: number;
  maxMemoryBytes: number;
  evictionPolicy: string;
  connectedClients: number;
  opsPerSecond: number;
  pingMs: number;
  replicas: number;
  evictedKeys: number;
  uptimeSeconds: number;
}

export interface SandboxViolation {
  rule: string;
  detail: string;
}

export interface SandboxViolationEvent {
  type: "sandbox:violation";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: SandboxViolation;
}

export interface ShareInfo {
  shareId: string;
  /** milliseconds since the epoch */
  createdAt: number;
  /** milliseconds since the epoch */
  expiresAt: number;
  by: string;
}

/** Those that have neither expired nor been revoked, oldest first. */
export interface ShareList {
  shares: readonly ShareInfo[];
}

/** `token` is a bearer token; it is shown this once. `url` opens the console with it. */
export interface ShareResponse {
  shareId: string;
  /** milliseconds since the epoch */
  createdAt: number;
  /** milliseconds since the epoch */
  expiresAt: number;
  by: string;
  token: string;
  url: string;
}

export interface SpecialistActivated {
  specialist: string;
  task?: string;
  icon?: string;
}

export interface SpecialistActivatedEvent {
  type: "specialist:activated";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: SpecialistActivated;
}

export interface SpecialistComplete {
  specialist: string;
  summary?: string;
}

export interface SpecialistCompleteEvent {
  type: "specialist:complete";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: SpecialistComplete;
}

/** `interrupted`: the execution ended while it worked. */
export interface SpecialistState {
  specialist: string;
  status: "active" | "complete" | "interrupted";
  task: string | null;
  icon: string | null;
  summary: string | null;
  /** 0 to 100 */
  progress: number | null;
  currentAction: string | null;
}

/** What an execution has spent, all attempts together. */
export interface Spent {
  totalTokens?: number;
  costUsd?: number;
  toolCalls?: number;
  seconds?: number;
}

export interface Status {
  status: string;
  message: string;
}

export interface StatusEvent {
  type: "status";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: Status;
}

/** Where the stream stands, after events that the viewer's `types` leave out. Its block has the same `id`, the only one of a control event: a client resumes after it. */
export interface StreamCursor {
  /** `<ms>-<seq>`: a place in a log */
  cursor: string;
}

/** The last event of a stream, and why. `problem` is why an edge takes no such stream just now (`refused`): what it answers with an error status to others than an `EventSource` (RFC 9457). */
export interface StreamEnd {
  reason: "finished" | "gone" | "slow" | "expired" | "revoked" | "aged" | "draining" | "refused" | "replaced" | "lost_redis" | "failed";
  problem?: Problem;
}

/** The replay is done. `replayed`: how many events of the log it has shown, also where several came as one. */
export interface StreamLive {
  replayed: number;
}

/** First on every stream. A feed has no execution, and its state is `live`. */
export interface StreamOpen {
  retryMs: number;
  heartbeatSeconds: number;
  /** id of an execution, unique per user */
  executionId?: string;
  /** `<ms>-<seq>`: a place in a log */
  cursor?: string;
  state?: State | "live";
}

/** Some history cannot be had. `lost_from` and `lost_to` are ordinals. */
export interface StreamReset {
  reason: "diverged" | "trimmed" | "unknown";
  lostFrom?: number;
  lostTo?: number;
  /** `<ms>-<seq>`: a place in a log */
  resumedAt?: string;
}

/** The token of the stream expires at this time, and the stream ends. It comes a minute before, or at once. */
export interface StreamTokenExpiring {
  /** milliseconds since the epoch */
  expiresAt: number;
}

export interface Synthesis {
  message: string;
  specialistsComplete: readonly string[];
  specialistsPending: readonly string[];
}

export interface SynthesisEvent {
  type: "synthesis";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: Synthesis;
}

/** One whole thought. */
export interface Thinking {
  thought: string;
  iteration?: number;
  visible?: boolean;
}

/** A chunk of streamed reasoning. */
export interface ThinkingDelta {
  messageId: string;
  delta: string;
}

/** A chunk of streamed reasoning. */
export interface ThinkingDeltaEvent {
  type: "thinking:delta";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: ThinkingDelta;
}

/** One whole thought. */
export interface ThinkingEvent {
  type: "thinking";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: Thinking;
}

/** A whole thought, or a streamed one, which has a `message_id`. */
export interface ThoughtState {
  thought: string;
  messageId: string | null;
  iteration: number | null;
  visible: boolean;
  truncated: boolean;
}

export interface TicketResponse {
  ticket: string;
  /** milliseconds since the epoch */
  expiresAt: number;
}

/** A slow step was noticed. */
export interface Timeout {
  message: string;
  action: "continuing" | "stopping";
}

/** A slow step was noticed. */
export interface TimeoutEvent {
  type: "timeout";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: Timeout;
}

export interface ToolComplete {
  callId: string;
  toolName: string;
  result: unknown;
  /** seconds */
  duration: number;
}

export interface ToolCompleteEvent {
  type: "tool:complete";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: ToolComplete;
}

export interface ToolError {
  callId: string;
  toolName: string;
  error: string;
  /** seconds */
  duration: number;
}

export interface ToolErrorEvent {
  type: "tool:error";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: ToolError;
}

export interface ToolProgress {
  callId: string;
  /** 0 to 100 */
  progress?: number;
  message?: string;
}

export interface ToolProgressEvent {
  type: "tool:progress";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: ToolProgress;
}

export interface ToolStart {
  callId: string;
  toolName: string;
  params: unknown;
}

export interface ToolStartEvent {
  type: "tool:start";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: ToolStart;
}

/** One call. `progress` and `message` are those of the last `tool:progress`. `interrupted`: the execution ended before the call, and its outcome is unknown. */
export interface ToolState {
  callId: string;
  toolName: string;
  params: unknown;
  status: "complete" | "error" | "interrupted" | "running";
  result: unknown;
  error: string | null;
  /** seconds */
  duration: number | null;
  /** 0 to 100 */
  progress: number | null;
  message: string | null;
}

/** Tokens and cost of model calls; totals, not increments. */
export interface Usage {
  inputTokens: number;
  outputTokens: number;
  totalTokens: number;
  costUsd?: number;
  model?: string;
}

/** Running totals of the execution. */
export interface UsageTotals {
  inputTokens: number;
  outputTokens: number;
  totalTokens: number;
  costUsd?: number;
  model?: string;
}

/** Running totals of the execution. */
export interface UsageTotalsEvent {
  type: "usage";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: UsageTotals;
}

/** A person says something to the running agent. `mode` is `interrupt` if the agent should hear it at once. */
export interface UserMessage {
  messageId: string;
  by: string;
  mode: "interrupt" | "queue";
  text?: string;
  data?: unknown;
}

/** No attempt will take this message any more: its sender has withdrawn it, or the execution ends. */
export interface UserMessageDropped {
  messageId: string;
  reason: "ended" | "withdrawn";
}

/** No attempt will take this message any more: its sender has withdrawn it, or the execution ends. */
export interface UserMessageDroppedEvent {
  type: "user:message:dropped";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: UserMessageDropped;
}

/** A person says something to the running agent. `mode` is `interrupt` if the agent should hear it at once. */
export interface UserMessageEvent {
  type: "user:message";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: UserMessage;
}

/** A person's message. `taken`: by the attempt that runs now; the next one has it `queued` again. `reason`: why it was dropped. */
export interface UserMessageState {
  messageId: string;
  by: string;
  mode: "interrupt" | "queue";
  text: string | null;
  data: unknown;
  /** milliseconds since the epoch */
  sentAt: number | null;
  state: "dropped" | "queued" | "taken";
  reason: "ended" | "withdrawn" | null;
}

/** An attempt of the agent has taken these messages. A later attempt takes them again. */
export interface UserMessageTaken {
  messageIds: readonly string[];
  /** counts from 1 */
  attempt: number;
}

/** An attempt of the agent has taken these messages. A later attempt takes them again. */
export interface UserMessageTakenEvent {
  type: "user:message:taken";
  executionId: string;
  ts: number;
  traceparent?: string;
  requestId?: string;
  agent?: string;
  parentId?: string;
  data: UserMessageTaken;
}

/** Where events of the execution are posted to, signed by Standard Webhooks. `events`: their types, by default the three ends and `input:required`. `headers` are sent with each message. */
export interface WebhookRequest {
  url: string;
  events?: readonly string[];
  headers?: Record<string, string>;
}

/** An event as a stream gives it. */
export type StreamEvent = Event & { id: string };

/** What a stream says of itself. */
export type StreamControl =
  | { type: "stream:open"; data: StreamOpen }
  | { type: "stream:live"; data: StreamLive }
  | { type: "stream:cursor"; data: StreamCursor }
  | { type: "stream:reset"; data: StreamReset }
  | { type: "stream:token_expiring"; data: StreamTokenExpiring }
  | { type: "stream:end"; data: StreamEnd };
