// The notes and titles of our workflows in the language of the pages, where they still say what was shipped. Names of nodes and
// of inputs are those that the menu shows: locales/*/main.json has {NodeClass} and {NodeClass.input} in their places.
import { app } from '../../scripts/app.js'

const NOTE = 'MarkdownNote'
const PLACE = /\{([\w.]+)\}/g
let locales // what the packs bring, by language

function nameOf(kind, input, language) {
  if (!input) return window.LiteGraph.registered_node_types[kind]?.title ?? kind
  const shown = app.graph._nodes.find((node) => node.type === kind)?.inputs?.find((one) => one.name === input)
  return locales[language]?.nodeDefs?.[kind]?.inputs?.[input]?.name ?? shown?.localized_name ?? input
}

function models() {
  const files = app.graph._nodes.flatMap((node) => node.properties?.models ?? [])
  return files.map(({ name, url, directory }) => `- [**${name}**](${url}): **${directory}**`).join('\n')
}

const fill = (text, language) =>
  text.replace(PLACE, (_, word) => (word === 'models' ? models() : nameOf(...[...word.split('.'), ''].slice(0, 2), language)))

// Whether a note still says what was shipped, whatever nodes are called.
function isAsShipped(value, text) {
  const parts = text.split(PLACE).filter((_, index) => index % 2 === 0)
  const pattern = parts.map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('[^]*?')
  return new RegExp(`^${pattern}$`).test(value)
}

async function translate() {
  const language = app.extensionManager.setting.get('Comfy.Locale')
  if (!language || language === 'en') return
  locales ??= await app.api.fetchApi('/i18n').then((answer) => answer.json())
  const [english, own] = [locales.en?.histream, locales[language]?.histream]
  if (!english || !own) return
  for (const node of app.graph._nodes) {
    node.title = own.titles[node.title] ?? node.title
    const note = node.type === NOTE && node.widgets?.[0]
    const number = note && Object.keys(english.notes).find((one) => isAsShipped(note.value, english.notes[one]))
    if (!number) continue
    note.value = fill(own.notes[number], language)
    node.title = note.value.split('\n')[0].slice(2)
  }
  app.canvas?.setDirty(true, true)
}

app.registerExtension({ name: 'HiStream.words', afterConfigureGraph: translate })
