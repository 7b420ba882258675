// The picture of each node for its help page: wired to what usually stands beside it, in the classic canvas.
//
//   node draw_nodes.js URL [NODE ...]        writes web/docs/NODE.jpg; without names, of all our nodes
'use strict'

const path = require('path')
const { chromium } = require('playwright-core')

const [url, ...names] = process.argv.slice(2)
const DOCS = path.join(__dirname, '..', '..', 'web', 'docs')
const BROWSER = process.env.CHROMIUM || '/usr/bin/chromium'
const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage']
const VIEW = { width: 1500, height: 1100 }

// What gives a socket's type, and what takes it, by its name or else its type: [node, its socket].
const GIVES = {
  MODEL: ['HiStreamLoadModel', 'MODEL'],
  VAE: ['VAELoader', 'VAE'],
  CLIP: ['CLIPLoader', 'CLIP'],
  CONDITIONING: ['CLIPTextEncode', 'CONDITIONING'],
  LATENT: ['EmptyHunyuanLatentVideo', 'LATENT'],
  IMAGE: ['LoadImage', 'IMAGE'],
  VIDEO: ['LoadVideo', 'VIDEO'],
  HISTREAM_SCHEDULE: ['HiStreamStepSchedule', 'schedule'],
  HISTREAM_SPEED: ['HiStreamSpeed', 'speed'],
  HISTREAM_VIDEO_OUTPUT: ['HiStreamVideoOutput', 'output'],
  HISTREAM_RANGE: ['HiStreamVideoFrames', 'range'],
  HISTREAM_FIRST_FRAME: ['HiStreamFirstFrame', 'first_frame'],
  '*': ['HiStreamAnchorWindowSampler', 'LATENT']
}
const TAKES = {
  MODEL: ['HiStreamAnchorWindowSampler', 'model'],
  CLIP: ['CLIPTextEncode', 'clip'],
  CONDITIONING: ['HiStreamAnchorWindowSampler', 'positive'],
  VAE: ['HiStreamStreamingVAEDecode', 'vae'],
  LATENT: ['HiStreamStreamingVAEDecode', 'samples'],
  VIDEO: ['SaveVideo', 'video'],
  IMAGE: ['PreviewImage', 'images'],
  STRING: ['PreviewAny', 'source'],
  farm: ['HiStreamFarmCollect', 'farm'],
  SAMPLER: ['SamplerCustomAdvanced', 'sampler'],
  SIGMAS: ['SamplerCustomAdvanced', 'sigmas']
}
const FILES = {
  model_name: 'self_forcing_dmd.pt',
  vae_name: 'wan_2.1_vae.safetensors',
  clip_name: 'umt5_xxl_fp8_e4m3fn_scaled.safetensors',
  image: 'picture.png',
  file: 'video.mp4',
  type: 'wan',
  shots: 'a street in the rain\na harbour at night'
}
const MANY = 4 // widgets; a neighbour with more is drawn as its title alone
const ANY_TAKER = 'HiStreamAnchorWindowSampler' // of a socket that only our nodes have

// In the page: an empty graph, the node, a column of givers on its left and one of takers on its right; their frame.
function wire([kind, gives, takes, anyTaker, files, many]) {
  const { app, LiteGraph } = window
  const { graph, canvas } = app
  graph.clear()
  graph.last_node_id = window.drawn = (window.drawn ?? 0) + 100 // the page keeps what was set at a node of that number
  const put = (type, column) => {
    const node = LiteGraph.createNode(type)
    graph.add(node)
    columns[column].push(node)
    for (const widget of node.widgets ?? []) if (files[widget.name]) widget.value = files[widget.name]
    node.setSize([Math.max(node.size[0], 70 + 8 * node.title.length), node.size[1]]) // or titles are cut off
    if (column !== 1 && node.widgets?.length > many) node.collapse()
    return node
  }
  const columns = [[], [], []]
  const node = put(kind, 1)
  const made = {}
  const at = (type, column) => (made[`${type} ${column}`] ??= put(type, column))
  const slot = (sockets, name) => sockets.findIndex((socket) => socket.name === name)
  node.inputs?.forEach((input, index) => {
    const [type, name] = gives[input.type] ?? []
    if (input.widget || !type || type === kind) return
    const giver = at(type, 0)
    const from = slot(giver.outputs, name)
    if (from >= 0) giver.connect(from, node, index)
  })
  node.outputs?.forEach((output, index) => {
    const ours = output.type.startsWith('HISTREAM')
    const [type, name] = takes[output.name] ?? takes[output.type] ?? (ours ? [anyTaker, output.name] : [])
    if (!type || type === kind) return
    const taker = at(type, 2)
    let to = slot(taker.inputs, name)
    if (to < 0) to = taker.inputs.findIndex((input) => input.type === output.type)
    if (to >= 0 && taker.inputs[to].link == null) node.connect(index, taker, to)
  })
  let left = 60
  for (const column of columns) {
    if (!column.length) continue
    const width = Math.max(...column.map((each) => each.size[0])) // collapsed ones are drawn narrower
    let top = 60
    for (const each of column) {
      each.pos = [left, top]
      top += (each.flags.collapsed ? 0 : each.size[1]) + 70
    }
    left += width + 90
  }
  node.color = '#1d4d63'
  const all = columns.flat()
  const right = Math.max(...all.map((each) => each.pos[0] + each.size[0])) + 30
  const bottom = Math.max(...all.map((each) => each.pos[1] + (each.flags.collapsed ? 0 : each.size[1]))) + 30
  canvas.ds.scale = 1
  canvas.ds.offset = [40, 110]
  canvas.setDirty(true, true)
  return { right: right + 40, bottom: bottom + 110 }
}

async function main() {
  const headers = { 'Content-Type': 'application/json' }
  for (const [setting, value] of [
    ['Comfy.TutorialCompleted', true],
    ['Comfy.VueNodes.Enabled', false],
    ['Comfy.Minimap.Visible', false],
    ['Comfy.RightSidePanel.IsOpen', false]
  ])
    await fetch(`${url}/settings/${setting}`, { method: 'POST', body: JSON.stringify(value), headers })
  const browser = await chromium.launch({ executablePath: BROWSER, args: FLAGS })
  try {
    const page = await browser.newPage({ viewport: VIEW })
    await page.goto(url, { timeout: 600000 })
    await page.waitForFunction(() => window.LiteGraph?.registered_node_types.HiStreamLoadModel, null, { timeout: 600000 })
    await page.waitForTimeout(2000)
    await page.keyboard.press('Escape')
    const known = await page.evaluate(() =>
      Object.keys(window.LiteGraph.registered_node_types).filter((name) => name.startsWith('HiStream'))
    )
    await page.addStyleTag({ content: '.p-toast, .p-toast-message, [role=alert] { display: none !important }' })
    for (const name of names.length ? names : known) {
      const { right, bottom } = await page.evaluate(wire, [name, GIVES, TAKES, ANY_TAKER, FILES, MANY])
      await page.setViewportSize({ width: Math.ceil(Math.max(right + 20, 700)), height: Math.ceil(bottom + 80) })
      await page.waitForTimeout(900)
      const box = await page.locator('#graph-canvas').boundingBox()
      const clip = { x: box.x + 80, y: box.y + 110, width: right - 60, height: bottom - 105 }
      await page.screenshot({ path: path.join(DOCS, `${name}.jpg`), type: 'jpeg', quality: 70, clip })
      console.log(name)
    }
  } finally {
    await browser.close()
  }
}

main().catch((problem) => {
  console.error(problem)
  process.exit(1)
})
