"""The syntax that a migration may use, as a policy of RestrictedPython."""

import ast
import re
from typing import Any

from RestrictedPython import RestrictingNodeTransformer

_ANNOTATION = (
    ast.Name,
    ast.Attribute,
    ast.Constant,
    ast.Subscript,
    ast.Tuple,
    ast.List,
    ast.BinOp,
    ast.BitOr,
    ast.Load,
)


class Policy(RestrictingNodeTransformer):
    """Allow no classes, and no functions that SQLAlchemy would call, because it takes the code of functions apart."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:  # noqa: N802
        self._check_annotation(node.annotation)
        if node.value is not None:
            return self.visit(ast.copy_location(ast.Assign([node.target], node.value), node))
        if not isinstance(node.target, ast.Name):
            self.error(node, "An annotation without a value must be that of a name.")
        return None

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:  # noqa: N802
        parameters = node.args
        every = (*parameters.posonlyargs, *parameters.args, *parameters.kwonlyargs, parameters.vararg, parameters.kwarg)
        for one in filter(None, every):
            self._check_annotation(one.annotation)
            one.annotation = None
        self._check_annotation(node.returns)
        node.returns = None
        if node.decorator_list or getattr(node, "type_params", None):
            self.error(node, "Decorators and type parameters are not allowed.")
        function: Any = super().visit_FunctionDef(node)
        function.decorator_list.append(ast.copy_location(ast.Name("_function_", ast.Load()), node))
        return function

    def _check_annotation(self, annotation: ast.expr | None) -> None:
        """Refuse an annotation with code: annotations are removed here, and evaluated in production."""
        if annotation is not None and not all(isinstance(part, _ANNOTATION) for part in ast.walk(annotation)):
            self.error(annotation, "An annotation must be made of names and constants.")

    def visit_Call(self, node: ast.Call) -> Any:  # noqa: N802
        call: Any = super().visit_Call(node)
        if not (isinstance(call.func, ast.Name) and call.func.id == "_apply_"):
            call.args.insert(0, call.func)
            call.func = ast.copy_location(ast.Name("_apply_", ast.Load()), call.args[0])
        return call

    def check_name(self, node: Any, name: str | None, allow_magic_methods: bool = False) -> None:
        """Allow names that begin with an underscore. The names of guards also end with an underscore."""
        private = name is not None and re.fullmatch(r"_[A-Za-z](\w*[A-Za-z0-9])?", name)
        super().check_name(node, None if private else name, allow_magic_methods)

    # A migration that catches a refusal would hide from the judge what it does in production.
    visit_Try = visit_ClassDef = visit_Lambda = visit_Yield = RestrictingNodeTransformer.not_allowed  # noqa: N815
