"""Nodes: prompts that change over time, as a text or one after the other."""

from ...histream_core.stream.timeline import CHANGES, MAX_BLEND, Change, Cue, parse_timeline
from ..host import graph as host_graph
from ..host import sampler as host
from ..host import timeline as host_timeline
from ..host.api import CATEGORY, io, ui
from ..host.timeline import Timeline
from ..settings import ModelSettings, StepChoice

EXAMPLE = """[00:00-00:02] a red circle moves right on a blue background
[00:02-00:04, blend 2] a green square moves left on a blue background
[00:04, scene] a yellow circle moves up on a black background"""


def change_inputs():
    """The inputs that say how a prompt takes over from the one before."""
    return [
        io.Combo.Input(
            "change",
            options=list(CHANGES),
            default="recache",
            optional=True,
            tooltip="\n".join(f"{name}: {what}." for name, what in CHANGES.items()),
        ),
        io.Int.Input(
            "blend_chunks",
            default=3,
            min=1,
            max=MAX_BLEND,
            optional=True,
            advanced=True,
            tooltip="Chunks that a blend takes; with most weights a chunk is 0.75 s. The last of them has the new "
            "prompt alone.",
        ),
        io.Boolean.Input(
            "new_anchor",
            default=False,
            optional=True,
            advanced=True,
            tooltip="For cut and recache: the first frame under the new prompt becomes the one that all later chunks "
            "look back at, so that its look is held. Off: the first frame of the video stays. A scene has it always, a "
            "blend never. Takes room for one frame more in the key/value memory.",
        ),
    ]


class PromptTimeline(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamPromptTimeline",
            display_name="Prompt Timeline",
            category=CATEGORY,
            description="Several prompts, each from a time on: a line for each, [00:04-00:08] and what the video then "
            "shows. A prompt changes where a chunk begins (every 0.75 s with most weights); the node says which frame "
            "that is. Connect it as the positive prompt of the Anchor-Window Sampler.",
            search_aliases=[
                "HiStream",
                "prompt schedule",
                "prompt travel",
                "storyboard",
                "long video",
                "scene",
                "multi prompt",
            ],
            is_output_node=True,
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder of the MODEL (umt5_xxl, type wan)."),
                io.String.Input(
                    "timeline",
                    default=EXAMPLE,
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="A line for each prompt: [start-end] text, times as 00:04, 1:30 or 4.5 (seconds). The end "
                    "may be left out. Behind the time a line can say how it begins: cut, scene, recache, blend 3, "
                    "spherical 3, jump, new anchor, as in [00:04-00:08, blend 3]. A line without a time goes on with "
                    "the prompt above.",
                ),
                *change_inputs(),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Only to know how long its chunks are, for what this node says. Without it: 0.75 s.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(tooltip="For the Anchor-Window Sampler; other samplers see the first prompt."),
                io.String.Output(
                    display_name="sections", tooltip="The frame that each prompt begins at, a line for each."
                ),
            ],
        )

    @classmethod
    def execute(cls, clip, timeline, change="recache", blend_chunks=3, new_anchor=False, model=None):
        cues = parse_timeline(timeline, Change(change, blend_chunks, new_anchor))
        positives = tuple(clip.encode_from_tokens_scheduled(clip.tokenize(cue.prompt)) for cue in cues)
        told = Timeline(cues, positives)
        preset, _ = StepChoice().resolve(host.model_settings(model) if model else ModelSettings())
        positive, lines = host_timeline.with_timeline(told), host_timeline.look(told, preset)
        shown = ui.PreviewText("\n".join([*lines, *host_timeline.notes_of(positive)]))
        return io.NodeOutput(positive, "\n".join(lines), ui=shown)


class TimelineSection(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="HiStreamTimelineSection",
            display_name="Timeline Section",
            category=CATEGORY,
            description="Another prompt from a time on. Takes any plain CONDITIONING, so each prompt can come from a "
            "node of its own; chain several for a story.",
            search_aliases=["HiStream", "prompt schedule", "prompt travel", "scene", "multi prompt"],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            inputs=[
                io.Conditioning.Input(
                    "before", tooltip="What the video shows before: a prompt, a Prompt Timeline or a Timeline Section."
                ),
                io.Conditioning.Input("positive", tooltip="The prompt from there on."),
                io.Float.Input(
                    "seconds",
                    default=4,
                    min=0.05,
                    max=36000,
                    step=0.05,
                    tooltip="When it begins, at the frames per second of Video Output (16 without one). It is moved to "
                    "the nearest chunk, and the sampler says which frame that is.",
                ),
                *change_inputs(),
            ],
            outputs=[io.Conditioning.Output(tooltip="For the Anchor-Window Sampler, or another Timeline Section.")],
        )

    @classmethod
    def execute(cls, before, positive, seconds, change="recache", blend_chunks=3, new_anchor=False):
        if host_timeline.timeline_of(positive):
            raise ValueError("the prompt of a Timeline Section is a timeline itself: connect a plain prompt, or chain")
        told = host_timeline.timeline_of(before) or Timeline((Cue(0.0, words(cls.hidden, "before", 1)),), (before,))
        number = len(told.cues) + 1
        cue = Cue(float(seconds), words(cls.hidden, "positive", number), Change(change, blend_chunks, new_anchor))
        return io.NodeOutput(host_timeline.with_timeline(Timeline((*told.cues, cue), (*told.positives, positive))))


def words(hidden, name: str, number: int) -> str:
    """The text of an input, to show and store; a name with its number if none is found."""
    return host_graph.words_of(hidden, name) or f"prompt {number}"
