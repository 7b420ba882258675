// Memory Plan writes its plan into the node, as the host's Preview as Text does: its own line under a node is 200 pixels high.
import { app } from '../../scripts/app.js'
import { ComfyWidgets } from '../../scripts/widgets.js'

const NODE = 'HiStreamMemoryPlan'
const PLAN = 'plan'
const HEIGHT = 340 // of the words, in a node that has just been added

function addPlan(node) {
  const { widget } = ComfyWidgets.STRING(node, PLAN, ['STRING', { multiline: true }], app)
  widget.options.read_only = true
  widget.serialize = false // neither in the workflow nor among the inputs
  widget.options.serialize = false
  if (widget.element) widget.element.readOnly = true
  node.setSize([Math.max(node.size[0], 420), node.computeSize()[1] + HEIGHT])
}

const write = (node, output) => {
  const words = node?.widgets?.find((widget) => widget.name === PLAN)
  if (words && output?.text) words.value = output.text.join('\n')
}

app.registerExtension({
  name: 'HiStream.plan',
  beforeRegisterNodeDef(type, { name }) {
    if (name !== NODE) return
    const { onNodeCreated, onExecuted } = type.prototype
    type.prototype.onNodeCreated = function (...args) {
      onNodeCreated?.apply(this, args)
      addPlan(this)
    }
    type.prototype.onExecuted = function (output) {
      onExecuted?.call(this, output)
      write(this, output)
    }
  },
  onNodeOutputsUpdated(outputs) {
    const graph = app.rootGraph ?? app.graph
    for (const [id, output] of Object.entries(outputs)) {
      const node = graph?.getNodeById(Number(id))
      if (node?.comfyClass === NODE) write(node, output)
    }
  }
})
