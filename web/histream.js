// A node shows its live previews as long as there are any, also when it has put out its video: the classic canvas keeps the
// last one, and Vue nodes try to play it. So they are dropped when one of our nodes is finished, for the player to come.
import { app } from '../../scripts/app.js'

const PREVIEWS = ['$$canvas-image-preview', '$$comfy_animation_preview']
const PLAYER = 'video-preview'

// The node of an execution id such as "5", or "3:5" for node 5 in subgraph node 3; and its key among the previews.
function find(id) {
  const numbers = String(id).split(':')
  let graph = app.rootGraph ?? app.graph
  for (const number of numbers.slice(0, -1)) graph = graph?.getNodeById(Number(number))?.subgraph
  const last = numbers[numbers.length - 1]
  const node = graph?.getNodeById(Number(last))
  return [node, numbers.length > 1 ? `${graph?.id}:${last}` : last]
}

// Where Vue nodes look; nothing official leads there, so it may be gone in another version.
function shownByVue() {
  const page = [...document.querySelectorAll('div')].find((part) => part.__vue_app__)
  return page?.__vue_app__.config.globalProperties.$pinia?._s?.get('nodeOutput')?.nodePreviewImages
}

function showPlayer({ detail }) {
  const [node, key] = find(detail.display_node ?? detail.node)
  const videos = detail.output?.animated?.some(Boolean)
  if (!videos || !node?.type?.startsWith('HiStream')) return
  delete app.nodePreviewImages[key]
  const shown = shownByVue()
  if (shown) delete shown[key]
  if (!window.LiteGraph?.vueNodesMode) settle(node, key, 100)
}

// The last preview may still be loading when the node is finished, and the player comes when its file is loaded.
function settle(node, key, tries) {
  if (!tries || app.nodePreviewImages[key]) return
  dropPreview(node)
  makeRoom(node)
  setTimeout(() => settle(node, key, tries - 1), 100)
}

function dropPreview(node) {
  node.imgs = undefined
  for (const still of node.widgets?.filter((widget) => PREVIEWS.includes(widget.name)) ?? []) {
    still.onRemove?.()
    node.widgets.splice(node.widgets.indexOf(still), 1)
    node.setDirtyCanvas?.(true, true)
  }
}

// The player would stand out of a node that has the height of before.
function makeRoom(node) {
  if (!node.widgets?.some((widget) => widget.name === PLAYER)) return
  const height = node.computeSize()[1]
  if (node.size[1] >= height) return
  node.setSize([node.size[0], height])
  node.setDirtyCanvas?.(true, true)
}

app.registerExtension({
  name: 'HiStream.player',
  setup() {
    app.api.addEventListener('executed', showPlayer)
  }
})
