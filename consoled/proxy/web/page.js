// SPDX-License-Identifier: Apache-2.0
// Shared by the console pages: the bar, the state, the websocket, and the reason why a console ended.

const root = document.documentElement;
const element = (id) => document.getElementById(id);

export const query = new URLSearchParams(location.search);
export const screen = element('screen');
const title = (query.get('title') ?? '').trim().slice(0, 120) || document.title;

// By the close code of a websocket that had opened: [reason, text if the proxy sends none, retryable].
const CLOSED = {
  1000: ['closed', 'The console was closed.', true],
  1001: ['connection_lost', 'The connection timed out.', true],
  1002: ['protocol_error', 'The connection was closed because of a protocol error.', true],
  1005: ['closed', 'The console was closed.', true],
  1006: ['connection_lost', 'The connection was lost.', true],
  1009: ['message_too_big', 'The connection was closed because a message was too big.', true],
  1011: ['console_ended', 'The guest closed its console, or the console failed.', true],
  1012: ['proxy_restart', 'The console proxy is restarting.', true],
  1013: ['try_later', 'The console service is unavailable. Try again later.', true],
  4401: ['invalid_token', 'The console token is not valid or has expired.', false],
  4403: ['revoked', 'Your access to this console was revoked.', false],
  4404: ['console_gone', 'The console has moved or no longer exists.', false],
  4408: ['session_over', 'The session has expired.', true],
  4409: ['taken_over', 'Another user has taken over this console.', true],
};

// --- the state: for users, screen readers and tests ---

function show(state, text, reason = '') {
  root.dataset.state = state;
  root.dataset.reason = reason;
  element('state').textContent = text;
  for (const button of document.querySelectorAll('.needs-console')) {
    button.disabled = state !== 'connected';
  }
}

function connecting() {
  element('incomplete')?.remove();
  element('notice').hidden = true;
  element('why').textContent = '';
  show('connecting', 'Connecting…');
}

/** Change the text of the state, which stays the same. */
export function status(text) {
  element('state').textContent = text;
}

export function connected() {
  nameConsole('');
  show('connected', 'Connected');
  typing.restart();
}

/** Say in the title and the state which console of the guest it is. Without a name: the one of the token. */
export function nameConsole(name) {
  document.title = name ? `${name} - ${title}` : title;
  if (name) {
    status(`Connected to ${name[0].toLowerCase()}${name.slice(1)}`);
  }
}

function ended({ reason, text, retryable, ports = null }, again, offer) {
  for (const dialog of document.querySelectorAll('dialog[open]')) {
    dialog.close();
  }
  const wasConnected = root.dataset.state === 'connected';
  show('ended', wasConnected ? 'Disconnected' : 'Not connected', reason);
  element('outcome').textContent = wasConnected ? 'Console disconnected' : 'Cannot open the console';
  element('why').textContent = text;
  const retry = element('retry');
  retry.hidden = !retryable;
  retry.onclick = again;
  offer(ports, again);
  const buttons = element('notice').querySelectorAll('button');
  const enable = (enabled) => buttons.forEach((button) => { button.disabled = !enabled; });
  enable(false);  // for a while: a double click, too, may have been meant for the guest
  setTimeout(enable, PAUSE, true);
  element('notice').hidden = false;
  typing.restart();
  element('notice').focus();  // not the button: what is being typed is meant for the guest
}

/**
 * Run `open`, which resolves to how the console ended, and again whenever the user wants to retry.
 *
 * `offer` is called with what else the user may open, or null, and a function that runs `open` again.
 */
export async function run(open, offer = () => {}) {
  connecting();
  let how;
  try {
    if (!window.WebSocket) {
      throw new PageError('no_websocket', 'This browser has no websockets.');
    }
    how = await open();
  } catch (error) {
    how = error instanceof PageError ? error.how : UNEXPECTED;
    if (error.cause || how === UNEXPECTED) {
      console.error(error.cause ?? error);
    }
  }
  ended(how, () => run(open, offer), offer);
}

// --- typing: keys never act on what has just appeared ---

const PAUSE = 1000;  // ms
const MODIFIERS = new Set(['Alt', 'AltGraph', 'CapsLock', 'Control', 'Meta', 'Shift']);  // do nothing by themselves

/**
 * Keys that are dropped, because the user cannot have meant what they would do.
 *
 * On the notice that a console has ended, that is whatever is typed without a pause: a user who types into a
 * console that is taken over must not do so in turn by the next space. On a console that has just opened, it
 * is the repetition of a key that was pressed before, such as Enter on "Try again".
 */
const typing = {
  last: 0,  // when a key was pressed or released, on the clock of event.timeStamp
  accepted: new Set(),  // the keys that were pressed since the last change, and not dropped

  restart() {
    this.last = performance.now();
    this.accepted.clear();
  },

  drops(event) {
    if (MODIFIERS.has(event.key)) {
      return false;
    }
    const paused = event.timeStamp - this.last >= PAUSE;
    this.last = event.timeStamp;
    const onNotice = !element('notice').hidden;
    if (event.type !== 'keydown' || event.repeat) {
      return !this.accepted.has(event.code) && (onNotice || event.type === 'keydown');
    }
    if (onNotice && !paused) {
      this.accepted.delete(event.code);
      return true;
    }
    this.accepted.add(event.code);
    return false;
  },
};

function dropTyping() {
  for (const type of ['keydown', 'keypress', 'keyup']) {
    window.addEventListener(type, (event) => {
      if (typing.drops(event)) {
        event.preventDefault();
        event.stopImmediatePropagation();
      }
    }, { capture: true });
  }
}

// --- the websocket ---

/** An end that needs no websocket, with the reason and the text for the user. */
export class PageError extends Error {
  constructor(reason, text, { retryable = false, cause } = {}) {
    super(text, { cause });
    this.how = { reason, text, retryable };
  }
}

export const UNREADABLE = {
  reason: 'display_error',
  text: 'The guest display sent data that this page does not understand.',
  retryable: true,
};
const UNEXPECTED = { reason: 'page_error', text: 'An error occurred in this page. Reload it to try again.' };

/** Return what a script of a library exports; `imported` is the promise that `import()` has returned. */
export async function library(imported) {
  try {
    return await imported;
  } catch (cause) {
    const text = 'A part of this page could not be loaded. Reload the page to try again.';
    throw new PageError('page_incomplete', text, { cause });
  }
}

/** Return the URL of the websocket with its token, as the query argument `path` (as in noVNC) or `token` says. */
function address() {
  const path = query.get('path');
  let url;
  try {
    // beside this page, as in noVNC 1.5 and newer: a load balancer may serve several cells below one name
    url = new URL(path ?? '', new URL('./', location.href));
  } catch {
    throw new PageError('bad_address', 'The address of this page is not valid.');
  }
  // the origin of a blob: is that of the URL in it
  if (url.protocol !== location.protocol || url.origin !== location.origin || url.username !== '' || url.password !== '') {
    throw new PageError('bad_address', 'The address of this page points to another host.');
  }
  url.hash = '';
  return url;
}

const NO_TOKEN = 'The address of this page has no token. Open the console again from your dashboard.';

/** Return the token in the address of this page; null if there is none, as when it is in a cookie. */
function tokenOf(url) {
  const token = url.searchParams.get('token') ?? query.get('token');
  if (token === null && query.get('path') === null) {
    throw new PageError('bad_address', NO_TOKEN);
  }
  if (token !== null && !/^[A-Za-z0-9_-]{16,128}$/.test(token)) {
    const [reason, text] = CLOSED[4401];
    throw new PageError(reason, text);
  }
  return token;
}

/**
 * Return the URL of the websocket, without the token: servers on the way log URLs.
 *
 * It is always on the host of this page. There is no argument for another host: a link must not make this
 * page send the keystrokes of whoever opens it elsewhere.
 */
export function consoleUrl() {
  const url = address();
  url.searchParams.delete('token');
  url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  return url.href;
}

/** Open a websocket, preferably with one of these subprotocols. One more is the token; the proxy selects another. */
export function openSocket(url, preferred = [], Socket = WebSocket) {
  const token = tokenOf(address());
  const carriers = token === null ? [] : ['consoled.token.' + token];
  let socket;
  let cause;
  try {
    socket = new Socket(url, [...preferred, 'binary', ...carriers]);
  } catch (error) {
    cause = error;
  }
  if (cause || socket.readyState === WebSocket.CLOSED) {  // what a policy forbids: Chromium throws no error then
    throw new PageError('no_websocket', 'This browser does not allow websockets here.', { cause });
  }
  socket.binaryType = 'arraybuffer';
  return socket;
}

/** Resolve to how a websocket ended. Call it before the websocket can have opened. */
export function ending(socket) {
  return new Promise((resolve) => {
    let opened = false;
    // a browser may keep a page that was left, in a frame with its websocket, for minutes
    const leave = () => socket.close();
    window.addEventListener('pagehide', leave);
    socket.addEventListener('open', () => { opened = true; });
    socket.addEventListener('close', (event) => {
      window.removeEventListener('pagehide', leave);
      resolve(opened ? closed(event) : refused(socket.url));
    });
  });
}

// What a library closes a websocket with, on either side: its own words are not for users.
const BY_LIBRARIES = [1002, 1003, 1007, 1008, 1009, 1010];

function closed(event) {
  const [reason, text, retryable] = CLOSED[event.code] ?? ['closed', 'The console was closed.', true];
  return { reason, text: (!BY_LIBRARIES.includes(event.code) && event.reason) || text, retryable };
}

// Browsers hide the response that refused a websocket, so ask for the reason with an ordinary request.
async function refused(socketUrl) {
  const url = new URL(socketUrl);
  url.protocol = location.protocol;
  const token = tokenOf(address());
  let response;
  try {
    response = await fetch(url, {
      cache: 'no-store',
      headers: { Accept: 'application/json', ...(token === null ? {} : { 'Consoled-Token': token }) },
      redirect: 'error',
      signal: AbortSignal.timeout(15000),
    });
  } catch {
    if (self.origin === 'null') {  // of such a page, the proxy accepts nothing, unless allowed_origins says so
      const text = 'This page is in a frame whose sandbox is too strict: it has to include allow-same-origin.';
      return { reason: 'sandboxed', text, retryable: false };
    }
    return { reason: 'proxy_unreachable', text: 'The console proxy is not responding.', retryable: true };
  }
  const answer = await response.json().catch(() => null);
  if (token === null && answer?.code === 'not_found') {  // nor is there one in a cookie
    return { reason: 'bad_address', text: NO_TOKEN, retryable: false };
  }
  const hasReason = typeof answer?.code === 'string' && typeof answer.reason === 'string';
  if (hasReason && answer.code !== 'upgrade_required') {
    const { code: reason, reason: text, serial_ports: count, free_ports: free } = answer;
    const ports = Array.isArray(free) && free.every(Number.isInteger) ? { count, free } : null;
    return { reason, text, retryable: answer.retryable === true, ports };
  }
  const text = 'Cannot connect to the console. A firewall or proxy on the way may be blocking websockets.';
  return { reason: 'connection_failed', text, retryable: true };
}

// --- the bar ---

export function onButton(id, action) {
  element(id).addEventListener('click', action);
}

/**
 * Ask for a text, `initial` by default, of at most `limit` characters. Resolve to { action, text }, or to null
 * if the user cancels. The action is the value of the dialog's button.
 */
export function askText(initial = '', limit = Infinity) {
  const dialog = element('text-dialog');
  const input = element('text');
  input.oninput = () => {  // not maxlength, which would cut off the end of what is pasted
    input.setCustomValidity(input.value.length > limit ? `At most ${limit} characters can be sent.` : '');
  };
  input.value = initial;
  input.oninput();
  dialog.returnValue = '';
  dialog.showModal();
  input.focus();
  input.select();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      const text = input.value;
      input.value = '';  // it may be a password
      resolve(dialog.returnValue && text ? { action: dialog.returnValue, text } : null);
    }, { once: true });
  });
}

async function toggleFullscreen() {
  if (document.fullscreenElement) {
    await document.exitFullscreen();
    return;
  }
  await root.requestFullscreen();
  // where supported, Escape and Alt-Tab then go to the guest, too; holding Escape leaves fullscreen
  await navigator.keyboard?.lock?.().catch(() => {});
}

/** Move the focus to the bar on Ctrl+Alt+Shift+B, for users without a mouse: Tab goes to the guest. */
function addBarShortcut() {
  window.addEventListener('keydown', (event) => {
    if (event.code === 'KeyB' && event.ctrlKey && event.altKey && event.shiftKey) {
      event.preventDefault();
      event.stopImmediatePropagation();
      window.dispatchEvent(new Event('blur'));  // makes noVNC release the keys that it considers held
      document.querySelector('.bar button:enabled')?.focus();
    }
  }, { capture: true });
}

function prepare() {
  element('title').textContent = title;
  document.title = title;
  const fullscreen = element('fullscreen');
  fullscreen.hidden = !document.fullscreenEnabled;
  fullscreen.addEventListener('click', () => toggleFullscreen().catch(() => {}));
  document.addEventListener('fullscreenchange', () => {
    fullscreen.setAttribute('aria-pressed', String(document.fullscreenElement !== null));
  });
  dropTyping();
  addBarShortcut();
}

prepare();
