// Run `oidc-provider`, a certified OpenID provider, on loopback: node oidc_provider.mjs FOLDER-OF-THE-PACKAGE PORT
//
// POST /rotate signs with a new key from now on, and still publishes the old keys. POST /retire forgets the old keys.

import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import { pathToFileURL } from 'node:url'

const [folder, port] = process.argv.slice(2)
const { Provider } = await import(pathToFileURL(`${folder}/node_modules/oidc-provider/lib/index.js`))

const clients = [
  {
    client_id: 'shop',
    client_secret: 'a secret: with/special characters',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: []
  }
]
const features = {
  devInteractions: { enabled: false },
  clientCredentials: { enabled: true },
  resourceIndicators: {
    enabled: true,
    getResourceServerInfo: (_, resource) => ({
      scope: 'things:read things:write',
      audience: resource,
      accessTokenFormat: 'jwt'
    })
  }
}

function newKey() {
  const key = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' })
  return { ...key, kid: randomUUID(), use: 'sig', alg: 'RS256' }
}

function publish(keys) {
  // A provider has the same keys for all its life, so new keys need a new provider.
  const answer = new Provider(`http://127.0.0.1:${port}`, {
    clients,
    features,
    jwks: { keys },
    ttl: { ClientCredentials: 300 }
  }).callback()
  return { keys, answer }
}

let provider = publish([newKey()])

createServer((request, response) => {
  const { keys } = provider
  if (request.url === '/rotate') provider = publish([newKey(), ...keys])
  else if (request.url === '/retire') provider = publish(keys.slice(0, 1))
  else return provider.answer(request, response)
  response.end()
}).listen(port, '127.0.0.1')
