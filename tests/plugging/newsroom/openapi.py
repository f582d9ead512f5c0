"""An API of the host's whose names are as common as ours."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.authentication import SessionAuthentication, TokenAuthentication
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView


class ErrorSerializer(serializers.Serializer[Any]):
    reason = serializers.CharField()


class ImageSerializer(serializers.Serializer[Any]):
    status = serializers.ChoiceField(["draft", "published"])
    variant = serializers.ChoiceField(["print", "web"])


class GenerateSerializer(serializers.Serializer[Any]):
    status = serializers.ChoiceField(["wanted", "declined"])


class Pictures(APIView):
    """A view with REST framework's own authentication."""

    authentication_classes = [TokenAuthentication, SessionAuthentication]

    @extend_schema(request=GenerateSerializer, responses={200: ImageSerializer, 400: ErrorSerializer})
    def post(self, request: Request) -> Response:
        return Response({})
