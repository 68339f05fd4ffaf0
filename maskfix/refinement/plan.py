"""What is to be done in one image: the click script's wishes matched with its instances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from maskfix.errors import InputError, InstanceError
from maskfix.formats.base import Annotation, ImageItem
from maskfix.formats.click_script import (
    ById,
    ByIndex,
    ByPoint,
    ImageScript,
    InstanceScript,
    Merge,
    New,
    Selector,
)
from maskfix.masks import Mask, union


@dataclass(frozen=True)
class Task:
    """One instance to work on.

    Attributes:
        annotation: what there is; None for a new instance, or one that was not found.
        script: clicks and action; an empty one for instances that only simulation touches.
        mask: what to start from: the annotation's mask, a union when merging, None for nothing.
        absorbed: the instance that goes when two are merged.
        problem: why nothing can be done.
    """

    annotation: Annotation | None
    script: InstanceScript
    mask: Mask | None
    absorbed: Annotation | None = None
    problem: str | None = None


def plan_image(
    item: ImageItem,
    script: ImageScript | None,
    height: int,
    width: int,
    everything: bool,
    check_category: Callable[[str], object],
) -> list[Task]:
    """The tasks of one image, in script order, then those the script does not name.

    Args:
        item: the image and its instances.
        script: what a person wants, if anything.
        height, width: size of the image as annotated, or as decoded where that is unknown.
        everything: make tasks for the instances that the script does not name, too, but for crowds.
        check_category: raises InputError for a name that cannot be written.
    """
    wishes = script.to_pixels(width, height).instances if script else ()
    tasks = [_plan_instance(item, wish, height, width, check_category) for wish in wishes]
    if everything:
        named = {t.annotation.key for t in tasks if t.annotation}
        named |= {t.absorbed.key for t in tasks if t.absorbed}
        tasks += [
            Task(a, InstanceScript(ById(a.id)), a.mask, problem=a.problem)
            for a in item.annotations
            if a.key not in named and not a.is_crowd
        ]
    return _refuse_repetition(tasks)


def _plan_instance(
    item: ImageItem,
    wish: InstanceScript,
    height: int,
    width: int,
    check_category: Callable[[str], object],
) -> Task:
    found: Annotation | None = None
    try:
        if isinstance(wish.selector, New):
            task = Task(None, wish, None)
        elif isinstance(wish.selector, Merge):
            found, second = (_find(item, ById(i)) for i in wish.selector.ids)
            task = Task(found, wish, _merged(found, second), second)
        else:
            found = _find(item, wish.selector)
            problem = None if wish.action == "delete" else found.problem
            task = Task(found, wish, found.mask, problem=problem)
        outside = wish.outside(width, height)
        if outside:
            raise InstanceError(outside)
        _refuse_contradiction(wish)
        _refuse_impossible_split(wish, task.mask)
        if found is None and not any(click.positive for click in wish.clicks):
            raise InstanceError("a new instance needs at least one positive click")
        for category in _categories_written(wish, found):
            check_category(category)
    except (InputError, InstanceError) as error:
        return Task(found, wish, None, problem=f"{wish.where}: {error}")
    return task


def _merged(first: Annotation, second: Annotation) -> Mask:
    if first.mask is None or second.mask is None:
        raise InstanceError(str(first.problem or second.problem))
    sizes = [(mask.height, mask.width) for mask in (first.mask, second.mask)]
    if sizes[0] != sizes[1]:
        raise InstanceError("their masks are of images of different sizes")
    return union(first.mask, second.mask)


def _categories_written(wish: InstanceScript, found: Annotation | None) -> list[str]:
    """Names that annotations will be written with."""
    if isinstance(wish.selector, New):
        return [wish.selector.category]
    names = [wish.category] if wish.category else []
    return [*names, found.category] if wish.split and found else names


def _refuse_contradiction(wish: InstanceScript) -> None:
    signs: dict[tuple[int, int], bool] = {}
    for click in wish.clicks:
        pixel = round(click.x), round(click.y)
        if signs.setdefault(pixel, click.positive) != click.positive:
            raise InstanceError(f"clicks of both kinds at ({pixel[0]}, {pixel[1]})")


def _refuse_impossible_split(wish: InstanceScript, mask: Mask | None) -> None:
    if not wish.split or mask is None:
        return
    for click in wish.clicks:
        if click.positive and not mask.contains(round(click.y), round(click.x)):
            raise InstanceError(
                f"split: the positive click ({click.x:g}, {click.y:g}) is not in the mask, "
                "of which it marks the part that stays"
            )


def _find(item: ImageItem, selector: Selector) -> Annotation:
    """The instance that a script names.

    Raises:
        InstanceError: there is none, or more than one.
    """
    annotations = item.annotations
    if isinstance(selector, ById):
        found = [a for a in annotations if a.id == selector.id]
        if not found:
            found = [a for a in annotations if str(a.id) == str(selector.id)]
    elif isinstance(selector, ByIndex):
        found = [a for a in annotations if a.index == selector.index]
    else:
        assert isinstance(selector, ByPoint)
        row, col = round(selector.y), round(selector.x)
        hit = [a for a in annotations if a.mask is not None and a.mask.contains(row, col)]
        found = sorted(hit, key=lambda a: a.mask.area if a.mask else 0)[:1]
        if not found:
            raise InstanceError("no mask is there")
    if not found:
        here = ", ".join(str(a.id) for a in annotations[:8]) or "none"
        raise InstanceError(f"{selector} is not in this image; its instances: {here}")
    if len(found) > 1:
        raise InstanceError(f"{selector} is there {len(found)} times; use index")
    return found[0]


def _refuse_repetition(tasks: list[Task]) -> list[Task]:
    """An instance is worked on once; what names it again fails."""
    seen: set[int] = set()
    kept = []
    for task in tasks:
        keys = {a.key for a in (task.annotation, task.absorbed) if a is not None}
        if keys & seen:
            problem = f"{task.script.where}: this instance is named before; put its clicks together"
            task = Task(None, task.script, None, problem=problem)
        seen |= keys
        kept.append(task)
    return kept
