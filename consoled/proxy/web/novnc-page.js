// SPDX-License-Identifier: Apache-2.0
// Runs first in the pages that come with noVNC (vnc.html, vnc_lite.html), for what noVNC 1.3 cannot do by itself.

{
  // noVNC keeps its settings in localStorage, which may be forbidden: then they last as long as the page
  try {
    window.localStorage.getItem('');
  } catch {
    const kept = new Map();
    const localStorage = {
      getItem: (name) => kept.get(name) ?? null,
      setItem: (name, value) => { kept.set(name, String(value)); },
      removeItem: (name) => { kept.delete(name); },
    };
    Object.defineProperty(window, 'localStorage', { value: localStorage });
  }

  // the websocket is beside the page, for load balancers with a path, and its URL, which is logged, has no token
  const here = new URL('./', location.href);
  const construct = (Socket, [address, protocols = []]) => {
    const url = new URL(address, here);
    if (url.host !== here.host) {
      return new Socket(address, protocols);  // which the Content-Security-Policy forbids
    }
    if (!url.pathname.startsWith(here.pathname)) {
      url.pathname = here.pathname + url.pathname.slice(1);
    }
    const offered = [protocols].flat();
    const token = url.searchParams.get('token');
    if (/^[A-Za-z0-9_-]+$/.test(token ?? '')) {
      url.searchParams.delete('token');
      offered.push('consoled.token.' + token, ...(offered.length ? [] : ['binary']));
    }
    return new Socket(url, offered);
  };
  window.WebSocket = new Proxy(window.WebSocket, { construct });
}
